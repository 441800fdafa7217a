"""Profiles of colours (ICC), whose makers name devices, rooms and people in them: what shows colours stays,
every text is blanked. All keeps its place and length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HEAD: Final = 132  # the header, and how many tags there are
UNUSED: Final = (100, 128)  # of the header
_TAG: Final = 12
_MOST_TAGS: Final = 200
_SHOWING: Final = frozenset(
    (
        *(b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt", b"bkpt", b"lumi", b"chad", b"chrm", b"meas", b"tech", b"cicp"),
        *(b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"gamt", b"pre0", b"pre1", b"pre2", b"view", b"rig0", b"rig2"),
        *(kind + number for kind in (b"A2B", b"B2A", b"D2B", b"B2D") for number in (b"0", b"1", b"2", b"3")),
    )
)
Words = tuple[int, int]


def tags_after(head: bytes) -> int:
    """How many bytes of tags follow the head."""
    many = int.from_bytes(head[HEAD - 4 : HEAD], "big")
    return _TAG * many if head[36:40] == b"acsp" and many <= _MOST_TAGS else 0


def words_in(head: bytes, tags: bytes) -> list[Words]:
    """From where to where something may be written; of what is no profile, all that follows."""
    if not tags:
        return [(len(head), 2**32)]
    begins = len(head) + len(tags)
    showing: list[Words] = []
    words: list[Words] = []
    for at in range(0, len(tags), _TAG):
        start, size = (int.from_bytes(tags[at + n : at + n + 4], "big") for n in (4, 8))
        (showing if tags[at : at + 4] in _SHOWING else words).append((max(start, begins), start + size))
    return sorted(each for each in words if not any(_overlap(each, other) for other in showing))


def blank(words: Words) -> bytes:
    """A text of spaces: whatever kind of text stood there, a reader finds an empty one."""
    length = max(0, words[1] - words[0])
    return (b"text\0\0\0\0" + b" " * max(0, length - 9) + b"\0")[:length]


def pieces(begin: int, length: int, words: list[Words]) -> Iterator[tuple[int, bytes]]:
    """What of a profile lies there, as lengths, each with what it is to be; nothing, if it stays."""
    at, end = begin, begin + length
    for each in words:
        start, stop = max(at, each[0]), min(end, each[1])
        if start >= stop:
            continue
        if start > at:
            yield start - at, b""
        whole = blank(each) if each[1] < 2**32 else b" " * (stop - each[0])
        yield stop - start, whole[start - each[0] : stop - each[0]]
        at = stop
    if at < end:
        yield end - at, b""


def without_words(profile: bytes) -> bytes:
    head = profile[:HEAD]
    tags = profile[HEAD : HEAD + tags_after(head)]
    begun = len(head) + len(tags)
    out = bytearray(profile[:begun])
    out[UNUSED[0] : UNUSED[1]] = bytes(len(out[UNUSED[0] : UNUSED[1]]))
    for length, told in pieces(begun, len(profile) - begun, words_in(head, tags)):
        out += told or profile[len(out) : len(out) + length]
    return bytes(out)


def _overlap(one: Words, other: Words) -> bool:
    return one[0] < other[1] and other[0] < one[1]
