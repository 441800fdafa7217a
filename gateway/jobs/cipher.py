"""Values that must not lie in the database in clear. The first key encrypts, all decrypt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Unreadable(Exception):
    """Stored with a key that isn't among `secret_keys` any more."""


class Cipher:
    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys])

    def encrypt(self, value: Any) -> bytes | None:
        return None if value is None else self._fernet.encrypt(json.dumps(value).encode())

    def decrypt(self, encrypted: bytes | None) -> Any:
        if encrypted is None:
            return None
        try:
            return json.loads(self._fernet.decrypt(bytes(encrypted)))
        except InvalidToken:
            raise Unreadable(
                "a stored secret can't be decrypted: put the key it was stored with back into secret_keys"
            ) from None
