"""The key that seals are signed with: in a file or the configuration, never in the database."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.jobs.records import Seal

Verdict = Literal["good", "forged", "unknown key"]


class SealKey:
    def __init__(self, pem: str) -> None:
        key = load_pem_private_key(pem.strip().encode(), None)
        assert isinstance(key, Ed25519PrivateKey)  # the settings have looked
        self._key = key
        self._name = _name_of(key.public_key())

    @property
    def public(self) -> str:
        """In PEM, for whoever verifies."""
        return _pem_of(self._key.public_key())

    def sign(self, seal: Seal) -> Seal:
        named = replace(seal, signed_by=self._name)
        hashed = named.digest()
        return replace(named, hash=hashed, signature=self._key.sign(_said(hashed)).hex())


class TrustedKeys:
    """Those whose signatures count."""

    def __init__(self, pems: Collection[str]) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        for pem in pems:
            key = load_pem_public_key(pem.strip().encode())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("isn't an Ed25519 public key in PEM")  # noqa: TRY004
            self._keys[_name_of(key)] = key

    def judge(self, seal: Seal) -> Verdict:
        key = self._keys.get(seal.signed_by or "")
        if key is None:
            return "unknown key"
        try:
            key.verify(bytes.fromhex(seal.signature or ""), _said(seal.hash))
        except (InvalidSignature, ValueError):
            return "forged"
        return "good"


def _said(hashed: str) -> bytes:
    return f"gateway seal {hashed}".encode()


def _pem_of(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _name_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
