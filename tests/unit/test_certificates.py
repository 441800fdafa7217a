"""Our own certificates: what is wrong with them is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.certificates import calling, serving
from gateway.settings.sections import Hl7Tls, Tls
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
        calling("destinations.ris.tls", Hl7Tls(ca=junk))
