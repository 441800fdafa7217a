"""An authority of the tests' own, and what it certifies."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
LONG = timedelta(days=1000)


@dataclass(frozen=True)
class Certified:
    certificate: Path
    key: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass
class Authority:
    """`path`: its own certificate, for those who trust it."""

    folder: Path
    name: str = "authority"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.path = self.folder / f"{self.name}.pem"
        own = self._sign(self.name, self.key, LONG, x509.DNSName(self.name), ca=True)
        self.path.write_bytes(own.public_bytes(_PEM))

    def certify(
        self,
        name: str,
        address: str = "127.0.0.1",
        lasts: timedelta = LONG,
        *,
        known: x509.GeneralName | None = None,
        use: x509.ObjectIdentifier | None = None,
    ) -> Certified:
        """`known`: as what, instead of the address. `use`: for this alone."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = Certified(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        place = known or x509.IPAddress(ipaddress.ip_address(address))
        certificate = self._sign(name, key, lasts, place, use=use)
        made.certificate.write_bytes(certificate.public_bytes(_PEM))
        made.key.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    def revoke(self, *certified: Certified) -> None:
        """In a list beside its own certificate, which its next call puts another in place of."""
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = x509.CertificateRevocationListBuilder(issuer, now - timedelta(hours=1), now + LONG)
        for each in certified:
            shown = x509.load_pem_x509_certificate(each.certificate.read_bytes())
            revoked = x509.RevokedCertificateBuilder(shown.serial_number, now - timedelta(hours=1)).build()
            builder = builder.add_revoked_certificate(revoked)
        listed = builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM)
        own = x509.load_pem_x509_certificate(self.path.read_bytes()).public_bytes(_PEM)
        self.path.write_bytes(own + listed)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        lasts: timedelta,
        place: x509.GeneralName,
        *,
        ca: bool = False,
        use: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        subject, issuer = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, known)]) for known in (name, self.name)
        )
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime.now(UTC) + lasts)
            .add_extension(x509.SubjectAlternativeName([place]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.sign(self.key, hashes.SHA256())
