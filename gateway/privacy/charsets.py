"""Texts as the object's character sets write them, which an object tells, and an item of it anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

TEXTS: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
DEFAULT: Final = ("latin_1",)
_ESCAPE: Final = 0x1B
_BREAKS: Final = {0x0A, 0x0C, 0x0D, 0x09}  # after which the first character set is in force again
_BETWEEN: Final = {0x5C, 0x5E, 0x3D}  # likewise, where there may be several values
_ONE_VALUE: Final = frozenset(("LT", "ST", "UT"))


@lru_cache(maxsize=256)
def read_charsets(value: bytes) -> Sequence[str]:
    """Python's names for Specific Character Set; one that nobody knows is taken for Latin-1."""
    from pydicom.charset import python_encoding

    terms = [term.strip() for term in value.decode("latin-1").strip(" \0").split("\\")]
    names = (python_encoding.get(term, "latin_1") for term in terms)
    return tuple("latin_1" if name == "iso8859" else name for name in names)


def decode(value: bytes, vr: str, charsets: Sequence[str]) -> str:
    """Never fails: what can't be read is replaced."""
    if vr not in TEXTS or (value.isascii() and _ESCAPE not in value):
        return value.decode("latin-1").rstrip("\0")
    from pydicom.charset import decode_bytes

    breaks = _BREAKS if vr in _ONE_VALUE else _BREAKS | _BETWEEN
    try:
        return decode_bytes(value, list(charsets), breaks).rstrip("\0")
    except (LookupError, ValueError):
        return value.decode("latin-1").rstrip("\0")


def encode(text: str, vr: str, charsets: Sequence[str]) -> bytes:
    if vr not in TEXTS or text.isascii():
        return text.encode("latin-1", "replace")
    from pydicom.charset import encode_string

    return b"\\".join(encode_string(part, list(charsets)) for part in text.split("\\"))
