"""Our own certificates and the authorities we trust, as the configuration names them: whether they can be
used, until when, and what has become of them since. Nothing below TLS 1.2 is spoken, and nobody's certificate
goes unchecked.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.settings.sections import Settings, Tls, Trust, parts_of
from gateway.settings.tree import Misconfigured

log = structlog.get_logger(__name__)

_REVOKED = b"-----BEGIN X509 CRL-----"  # a list of them, beside the authority that it is of
_LOOKED_FOR = 1.0  # seconds for which the files are taken to be what they were

Print = tuple[int, int, int, int] | None


class RenewedContext(ssl.SSLContext):
    """Each connection is made with what the files hold by then: a renewed certificate needs no restart. Files
    that can't be used leave in force what was there before. May be used by several threads."""

    def __new__(cls, *_: Any, **__: Any) -> RenewedContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)  # never used itself; it trusts nobody

    def __init__(
        self,
        place: str,
        files: Sequence[Path],
        read: Callable[[], ssl.SSLContext],
        vouching: Path | None = None,
    ) -> None:
        """`vouching`: the file that says whose certificates are good."""
        self._place = place
        self._files = files
        self._read = read
        self._vouching = vouching
        self._vouched_by = vouching and _print_of(vouching)
        self._changes = 0
        self._lock = threading.Lock()
        self._seen = self._look()
        self._current = read()
        self._looked = time.monotonic()

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        return self._renewed().wrap_bio(*given, **named)

    def wrap_socket(self, *given: Any, **named: Any) -> ssl.SSLSocket:
        return self._renewed().wrap_socket(*given, **named)

    def vouchers(self) -> int:
        """Another number once somebody else vouches, or not for all any more: who was let in before would
        perhaps not be let in now."""
        self._renewed()
        return self._changes

    def _renewed(self) -> ssl.SSLContext:
        with self._lock:
            if time.monotonic() - self._looked < _LOOKED_FOR:
                return self._current
            self._looked = time.monotonic()
            seen = self._look()  # before they are read: what changes meanwhile is seen the next time
            vouching = self._vouching and _print_of(self._vouching)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._current = self._read()
                except Misconfigured as trouble:
                    log.error(
                        "changed certificates can't be used; those from before stay in force",
                        place=self._place,
                        problems=list(trouble.problems),
                    )
                else:
                    log.info("renewed certificates are in force", place=self._place)
                    self._changes += vouching != self._vouched_by
                    self._vouched_by = vouching
            return self._current

    def _look(self) -> list[Print]:
        return [_print_of(file) for file in self._files]


class Subjects:
    """Names in which callers may come; `*` stands for anything, and none at all for everybody. Each allows
    names of its own kind: who gets to choose one, a mail address say, doesn't pass for another with it."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._patterns = [
            (
                _kind_of(subject),
                re.compile(".*".join(map(re.escape, subject.split("*"))), re.IGNORECASE | re.DOTALL),
            )
            for subject in allowed
        ]

    def have(self, der: bytes) -> bool:
        if not self._patterns:
            return True
        names = list(names_of(x509.load_der_x509_certificate(der)))
        return any(
            kind == wanted and pattern.fullmatch(name)
            for wanted, pattern in self._patterns
            for kind, name in names
        )


def _kind_of(pattern: str) -> str:
    if re.match(r"[A-Za-z0-9.]+=", pattern):
        return "subject"
    if "://" in pattern or pattern.lower().startswith("urn:"):
        return "uri"
    return "mail" if "@" in pattern else "name"


def names_of(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    """Its subject whole (as RFC 4514 writes it) and its common name, and what else it is for, each with its
    kind."""
    yield "subject", certificate.subject.rfc4514_string()
    for named in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield "name", str(named.value)
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (("name", name) for name in others.get_values_for_type(x509.DNSName))
    yield from (("name", str(address)) for address in others.get_values_for_type(x509.IPAddress))
    yield from (("uri", uri) for uri in others.get_values_for_type(x509.UniformResourceIdentifier))
    yield from (("mail", address) for address in others.get_values_for_type(x509.RFC822Name))


def serving(place: str, tls: Tls, asked: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> RenewedContext:
    """For those who call us. `asked`: whether they must show a certificate, if there is a client_ca."""

    def read() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _show(context, place, tls.certificate, tls.key)
        if tls.client_ca is not None:
            with _explained(f"{place}.client_ca", tls.client_ca):
                context.load_verify_locations(tls.client_ca)
                if _REVOKED in tls.client_ca.read_bytes():
                    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            context.verify_mode = asked
        return context

    return RenewedContext(place, _named(tls.certificate, tls.key, tls.client_ca), read, tls.client_ca)


def calling(place: str, trust: Trust) -> RenewedContext:
    """For those whom we call. Without a `ca` the machine's authorities are trusted."""

    def read() -> ssl.SSLContext:
        with _explained(f"{place}.ca", trust.ca):
            context = ssl.create_default_context(cafile=trust.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if trust.certificate is not None:
            _show(context, place, trust.certificate, trust.key)
        return context

    machine = ssl.get_default_verify_paths().cafile
    authorities = trust.ca or (Path(machine) if machine else None)
    return RenewedContext(place, _named(authorities, trust.certificate, trust.key), read)


@contextmanager
def telling_lines(settings: Settings) -> Iterator[None]:
    """Where one of its certificates keeps something from being made: all that can't be used, and where each
    stands."""
    try:
        yield
    except Misconfigured as trouble:
        told = dict(_find_unusable(settings))
        if told.keys().isdisjoint(trouble.problems):
            raise
        others = [problem for problem in trouble.problems if problem not in told]
        raise Misconfigured([*told.values(), *others]) from None


def _find_unusable(settings: Settings) -> Iterator[tuple[str, str]]:
    for place, part in parts_of(settings):
        if isinstance(part, Tls | Trust):
            for problem in _complaints(place, part):
                yield problem, settings.placed(problem.partition(": ")[0], problem)


def _complaints(place: str, part: Tls | Trust) -> Iterator[str]:
    missing = False
    for name in ("certificate", "key", "ca", "client_ca"):
        path: Path | None = getattr(part, name, None)
        try:
            with _explained(f"{place}.{name}", path):
                if path is not None:
                    path.read_bytes()
        except Misconfigured as trouble:
            missing = True
            yield from trouble.problems
    if missing:
        return
    try:
        serving(place, part) if isinstance(part, Tls) else calling(place, part)
    except Misconfigured as trouble:
        yield from trouble.problems


def expiry_of(place: str, certificate: Path) -> datetime:
    with _explained(f"{place}.certificate", certificate):
        return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc


def _named(*files: Path | None) -> list[Path]:
    return [file for file in files if file is not None]


def _print_of(file: Path) -> Print:
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


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


def read_authority(place: str, path: Path) -> bytes:
    """For those who take it as it is written, in PEM."""
    try:
        ssl.create_default_context(cafile=path)
        return path.read_bytes()
    except (OSError, ValueError):
        raise Misconfigured([f"{place}: {path} is no certificate that can be read"]) from None
