"""Our own certificates, as the configuration names them: whether they can be used, and until when."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.settings.sections import Hl7Tls, Tls
from gateway.settings.tree import Misconfigured


def serving(place: str, tls: Tls) -> ssl.SSLContext:
    """For those who call us."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _show(context, place, tls.certificate, tls.key)
    if tls.client_ca is not None:
        with _explained(f"{place}.client_ca", tls.client_ca):
            context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def calling(place: str, tls: Hl7Tls | None) -> ssl.SSLContext | None:
    """For those whom we call."""
    if tls is None:
        return None
    with _explained(f"{place}.ca", tls.ca):
        context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        _show(context, place, tls.certificate, tls.key)
    return context


def expiry_of(place: str, certificate: Path) -> datetime:
    with _explained(f"{place}.certificate", certificate):
        return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc


def _show(context: ssl.SSLContext, place: str, certificate: Path, key: Path | None) -> None:
    expiry_of(place, certificate)
    with _explained(f"{place}.key", key or certificate, "private key (PEM, without a password)"):
        try:
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            if error.reason != "KEY_VALUES_MISMATCH":
                raise
            raise Misconfigured([f"{place}.key: {key} isn't the key of {certificate}"]) from None


@contextmanager
def _explained(place: str, path: Path | None, what: str = "certificate (PEM)") -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, ValueError):  # an SSLError is an OSError too
        raise Misconfigured([f"{place}: {path} is no {what}"]) from None
    except OSError as error:
        raise Misconfigured([f"{place}: {path} can't be read: {error.strerror}"]) from None
