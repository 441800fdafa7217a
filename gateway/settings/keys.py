"""The keys that must not lie in the database: secrets are encrypted with some, seals signed with one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured


def encryption_keys(settings: Settings) -> list[str]:
    """The configured keys; with the embedded database one of its own, made at the first start."""
    if settings.secret_keys:
        return [key.get_secret_value() for key in settings.secret_keys]
    return [_kept(settings.data_dir / "secret.key", make_encryption_key)]


def has_encryption_key(settings: Settings) -> bool:
    return bool(settings.secret_keys) or (settings.data_dir / "secret.key").exists()


def seal_key(settings: Settings) -> str:
    """The configured key that signs seals, in PEM, or one made at the first start."""
    if settings.seal_key is not None:
        return settings.seal_key.get_secret_value()
    return _kept(settings.data_dir / "seal.key", make_seal_key)


def known_seal_key(settings: Settings) -> str | None:
    """For those who only look: none is made."""
    if settings.seal_key is not None:
        return settings.seal_key.get_secret_value()
    path = settings.data_dir / "seal.key"
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(
            [f"{path}: can't be read; run this as the user whom the gateway runs as"]
        ) from None


def make_encryption_key() -> str:
    return Fernet.generate_key().decode()


def make_seal_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, make().encode())
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise Misconfigured([f"{path}: can't be used: {error.strerror}; see data_dir"]) from None


def _write_once(path: Path, content: bytes) -> None:
    """Whole, on disk, or not at all, and by one only: another process may be starting at this moment."""
    handle, beside = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        Path(beside).unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
