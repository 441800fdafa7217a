"""What is wrong with our own certificates is said with its place; in whose name callers come by theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.settings.certificates import Subjects, calling, serving
from gateway.settings.sections import Tls, Trust
from gateway.settings.tree import Misconfigured
from tests.peers.certificates import Authority


def test_what_is_wrong_with_a_certificate_is_said_with_its_place(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, other = authority.certify("good"), authority.certify("other")
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN NOTHING-----")
    listen = {"certificate": good.certificate, "key": good.key, "client_ca": authority.path}
    serving("listen.tls", Tls.model_validate(listen))
    for reason, given in {
        "listen.tls.key: .*other.key isn't the key of .*good.pem": {"key": other.key},
        "listen.tls.key: .*missing can't be read: No such file": {"key": tmp_path / "missing"},
        "listen.tls.key: .*junk.pem is no private key": {"key": junk},
        "listen.tls.certificate: .*missing can't be read: No such file": {
            "certificate": tmp_path / "missing"
        },
        "listen.tls.certificate: .*junk.pem is no certificate": {"certificate": junk},
        "listen.tls.client_ca: .*junk.pem is no certificate": {"client_ca": junk},
    }.items():
        with pytest.raises(Misconfigured, match=reason):
            serving("listen.tls", Tls.model_validate(listen | given))
    with pytest.raises(Misconfigured, match=r"destinations.ris.tls.ca: .*junk.pem is no certificate"):
        calling("destinations.ris.tls", Trust(ca=junk))


@pytest.mark.parametrize(
    ("allowed", "name", "known", "let_in"),
    [
        ("CN=pacs,*", "pacs", None, False),  # nothing comes after the name
        ("CN=pacs*", "pacs-1", None, True),
        ("PACS-*", "pacs-1", None, True),
        ("pacs-*", "x-pacs-1", None, False),
        ("*.pacs.hospital", "x", x509.DNSName("a.pacs.hospital"), True),
        ("*.pacs.hospital", "x", x509.DNSName("a.pacs.hospital.evil.example"), False),
        ("spiffe://hospital/*", "x", x509.UniformResourceIdentifier("spiffe://hospital/pacs"), True),
        ("*@hospital", "x", x509.RFC822Name("pacs@hospital"), True),
        # Whoever may choose a name of one kind doesn't pass with it for another.
        ("CN=pacs,*", "CN=pacs,O=Hospital", None, False),
        ("CN=pacs,*", "pacs,O=Hospital", None, False),
        ("CN=pacs*", "x", x509.DNSName("CN=pacs"), False),
        ("*.pacs.hospital", "x", x509.RFC822Name("jane@it.pacs.hospital"), False),
        ("*.pacs.hospital", "x", x509.UniformResourceIdentifier("http://x.pacs.hospital"), False),
        ("spiffe://hospital/*", "spiffe://hospital/pacs", None, False),
    ],
)
def test_callers_come_in_a_name_of_the_kind_that_is_allowed(
    tmp_path: Path, allowed: str, name: str, known: x509.GeneralName | None, let_in: bool
) -> None:
    folder = tmp_path / "spiffe:" / "hospital"  # since files are called like whom they certify
    folder.mkdir(parents=True)
    shown = Authority(tmp_path).certify(name, known=known).certificate.read_bytes()
    der = x509.load_pem_x509_certificate(shown).public_bytes(serialization.Encoding.DER)
    assert Subjects([allowed]).have(der) is let_in
    assert Subjects([]).have(der)
