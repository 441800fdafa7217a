"""Texts as the object's character sets write them, which an object tells, and an item of it anew.

With several of them, escape sequences change what the lower half of the bytes means, and the upper (ISO 2022,
as PS3.5 6.1.2.5 has it). Some write more freely than the standard, so a text may be read in several ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

TEXTS: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
ONE_VALUE: Final = frozenset(("LT", "ST", "UT"))
_ESCAPE: Final = 0x1B
_BREAKS: Final = "\n\f\r\t"  # after which the first character set is in force again
_OF_NAMES: Final = "^="  # likewise, in names


class _Half(NamedTuple):
    """What is meant by seven bits: by those with the eighth, unless it is `lower`. `prefix` makes of it what
    `codec` reads."""

    escape: bytes
    codec: str
    width: int = 1
    lower: bool = False
    prefix: bytes = b""


_ASCII: Final = _Half(b"\x1b(B", "ascii", lower=True)
_ROMAN: Final = _Half(b"\x1b(J", "ascii", lower=True)  # but for a yen and a line above
_LATIN: Final = _Half(b"\x1b-A", "iso8859_1")
_HALVES: Final = {
    "13": _Half(b"\x1b)I", "shift_jis"),
    "100": _LATIN,
    "101": _Half(b"\x1b-B", "iso8859_2"),
    "109": _Half(b"\x1b-C", "iso8859_3"),
    "110": _Half(b"\x1b-D", "iso8859_4"),
    "144": _Half(b"\x1b-L", "iso8859_5"),
    "127": _Half(b"\x1b-G", "iso8859_6"),
    "126": _Half(b"\x1b-F", "iso8859_7"),
    "138": _Half(b"\x1b-H", "iso8859_8"),
    "148": _Half(b"\x1b-M", "iso8859_9"),
    "166": _Half(b"\x1b-T", "iso8859_11"),
    "203": _Half(b"\x1b-b", "iso8859_15"),
    "87": _Half(b"\x1b$B", "iso2022_jp", 2, lower=True, prefix=b"\x1b$B"),
    "159": _Half(b"\x1b$(D", "iso2022_jp_2", 2, lower=True, prefix=b"\x1b$(D"),
    "149": _Half(b"\x1b$)C", "euc_kr", 2),
    "58": _Half(b"\x1b$)A", "gb2312", 2),
}
_BY_ESCAPE: Final = {half.escape: half for half in (_ASCII, _ROMAN, *_HALVES.values())}
# Without escape sequences.
_WHOLE: Final = {"ISO IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk", "ISO 2022 GBK": "gbk"}
_NUMBER: Final = re.compile(r"ISO ?(?:2022)? ?(?:IR)? ?(\d+)")


class Charsets(NamedTuple):
    """`whole`: the codec, where one says all. Else `first`, what the upper half means to begin with, and all
    that may be changed to. `known`: False, if it was declared as nothing that there is."""

    whole: str | None = None
    first: _Half | None = None
    others: tuple[_Half, ...] = ()
    lower: _Half = _ASCII
    known: bool = True


DEFAULT: Final = Charsets(first=_LATIN)


@lru_cache(maxsize=256)
def read_charsets(value: bytes) -> Charsets:
    """Of Specific Character Set; one that nobody knows is taken for Latin-1."""
    terms = [_plain(term) for term in value.decode("latin-1").strip(" \0").split("\\")]
    if (whole := next((_WHOLE[term] for term in terms if term in _WHOLE), None)) is not None:
        return Charsets(whole)
    found = [_NUMBER.fullmatch(term) for term in terms]
    numbers = [each[1] if each else "" for each in found]
    if not all(number in _HALVES or number == "6" for number in numbers):
        return DEFAULT._replace(known=False)
    halves = [_HALVES[number] for number in numbers if number in _HALVES]
    first = _HALVES.get(numbers[0])
    if first is None and len(terms) == 1:
        first = _LATIN  # which many write without saying so
    elif first is not None and first.lower:
        first = None
    return Charsets(first=first, others=tuple(halves), lower=_ROMAN if numbers[0] == "13" else _ASCII)


def _plain(term: str) -> str:
    words = re.split(r"[\s_-]+", term.strip().upper())
    return " ".join(words) if words != [""] else "ISO IR 6"


def decode(value: bytes, vr: str, charsets: Charsets) -> str:
    """Never fails: what can't be read is replaced."""
    if vr not in TEXTS or (value.isascii() and _ESCAPE not in value):
        return value.decode("latin-1").rstrip("\0")
    if charsets.whole is not None:
        return value.decode(charsets.whole, "replace").rstrip("\0")
    return "".join(_read(value, charsets, _ends(vr))).rstrip("\0")


def readings(value: bytes, vr: str, charsets: Charsets) -> Iterator[str]:
    """All that it may say besides: some write UTF-8 whatever they declare, others begin no line anew."""
    if value.isascii() and _ESCAPE not in value:
        return
    if charsets.whole != "utf_8":
        yield value.decode("utf-8", "ignore")
    if charsets.whole is not None:
        yield value.decode("latin-1")
    if _ESCAPE in value and vr in TEXTS:
        yield "".join(_read(value, charsets, ""))
    for codec in {half.codec for half in charsets.others if half.width > 1 and not half.lower}:
        yield value.decode(codec, "ignore")


def encode(text: str, vr: str, charsets: Charsets) -> bytes:
    if vr not in TEXTS or text.isascii():
        return text.encode("latin-1", "replace")
    if charsets.whole is not None:
        return text.encode(charsets.whole, "replace")
    return b"".join(_write(text, charsets, _ends(vr)))


def _ends(vr: str) -> str:
    return _BREAKS + ("" if vr in ONE_VALUE else "\\") + (_OF_NAMES if vr == "PN" else "")


def _read(value: bytes, charsets: Charsets, ends: str) -> Iterator[str]:
    lower, upper = charsets.lower, charsets.first
    at = 0
    while at < len(value):
        byte = value[at]
        if byte == _ESCAPE:
            half = _BY_ESCAPE.get(value[at : at + 4]) or _BY_ESCAPE.get(value[at : at + 3])
            if half is not None:
                # Some take each sequence for a change of the whole.
                lower, upper = (half, upper) if half.lower else (charsets.lower if ends else lower, half)
                at += len(half.escape)
                continue
        is_break = byte < 0x80 and chr(byte) in ends
        if is_break and (lower.width == 1 or byte < 0x20):
            # Where there is no first one, what follows can only be of the one before.
            lower, upper = charsets.lower, charsets.first or upper
        half = upper if byte >= 0x80 else lower
        if half is None or byte <= 0x20 or 0x80 <= byte < 0xA0:
            yield chr(byte)
            at += 1
            continue
        yield (half.prefix + value[at : at + half.width]).decode(half.codec, "replace")
        at += half.width


def _write(text: str, charsets: Charsets, ends: str) -> Iterator[bytes]:
    lower, upper = charsets.lower, charsets.first
    for letter in text:
        if letter.isascii():
            if lower is not charsets.lower:
                yield charsets.lower.escape
                lower = charsets.lower
            if letter in ends:
                upper = charsets.first
            yield letter.encode("ascii")
            continue
        for half in filter(None, (lower, upper, charsets.first, *charsets.others)):
            written = _letter(letter, half)
            if written is not None:
                if half.lower and half is not lower:
                    yield half.escape
                    lower = half
                elif not half.lower:
                    if lower is not charsets.lower:  # which some readers take for all that follows
                        yield charsets.lower.escape
                        lower = charsets.lower
                    if half is not upper:
                        yield half.escape
                        upper = half
                yield written
                break
        else:
            yield b"?"
    if lower is not charsets.lower:
        yield charsets.lower.escape


def _letter(letter: str, half: _Half) -> bytes | None:
    """None: it doesn't have it."""
    try:
        written = letter.encode(half.codec)
    except UnicodeEncodeError:
        return None
    if half.prefix:
        if not written.startswith(half.prefix):
            return None
        written = written[len(half.prefix) :].partition(b"\x1b")[0]
    if len(written) != half.width or (not half.lower and written[0] < 0xA0):
        return None
    return written
