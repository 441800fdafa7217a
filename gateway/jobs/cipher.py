"""Values that must not lie in the database in clear. The first key encrypts, all decrypt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_LOST = "a stored secret can't be decrypted: put the key it was stored with back into secret_keys"
_SHORT = 2048  # bytes
_REMEMBERED = 64


class Unreadable(Exception):
    """Stored with a key that isn't among `secret_keys` any more."""


class Cipher:
    def __init__(self, keys: Sequence[str]) -> None:
        fernets = [Fernet(key.strip()) for key in keys]
        self._fernet, self._first = MultiFernet(fernets), fernets[0]
        # A job's token is read with each of its steps.
        self._open_short = lru_cache(_REMEMBERED)(self._fernet.decrypt)

    def encrypt(self, value: Any) -> bytes | None:
        return None if value is None else self._fernet.encrypt(json.dumps(value).encode())

    def renew(self, encrypted: bytes) -> bytes | None:
        """As the first key encrypts it, for what outlives every key; None: that did so already."""
        try:
            self._first.decrypt(bytes(encrypted))
        except InvalidToken:
            pass
        else:
            return None
        try:
            return self._fernet.rotate(bytes(encrypted))
        except InvalidToken:
            raise Unreadable(_LOST) from None

    def decrypt(self, encrypted: bytes | None) -> Any:
        if encrypted is None:
            return None
        open_ = self._open_short if len(encrypted) <= _SHORT else self._fernet.decrypt
        try:
            return json.loads(open_(bytes(encrypted)))
        except InvalidToken:
            raise Unreadable(_LOST) from None
