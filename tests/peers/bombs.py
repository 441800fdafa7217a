"""Small bodies that hold gigabytes, and headers that have no end."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.peers.dicom_samples import encode, make_instance

_BLOCK = 2**24


@cache
def zeros_deflated(size: int) -> bytes:
    """A deflate stream, and its end."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeezer.compress(bytes(_BLOCK)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // _BLOCK) + squeezer.flush(zlib.Z_FINISH)


def deflated_bomb(study: str, series: str, sop: str, size: int = 2**31, **elements: object) -> bytes:
    """A valid beginning in the deflated transfer syntax; then a private value of this size, all zeros."""
    dataset = make_instance(study, series, sop, size=2, transfer_syntax=DeflatedExplicitVRLittleEndian)
    del dataset.PixelData
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    data = encode(dataset)
    start = 144 + int.from_bytes(data[140:144], "little")
    plain = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    plain += struct.pack("<HH2s2xL", 0x0029, 0x1010, b"OB", size)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = squeezer.compress(plain) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return data[:start] + begin + zeros_deflated(size)


def nested(study: str, series: str, sop: str, depth: int) -> bytes:
    """A sequence within a sequence within a sequence, and so on; all of them end."""
    data = encode(make_instance(study, series, sop, size=2))
    sequence = struct.pack("<HH2s2xL", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    at = data.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    return data[:at] + (sequence + item) * depth + ends * depth + data[at:]


def long_header(size: int, study: str = "1.2.3", series: str = "1.2.4", sop: str = "1.2.5") -> bytes:
    """Elements without a value, as many as there is room for, before it is said which study it is of."""
    data = encode(make_instance(study, series, sop, size=2))
    at = data.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    filler = b"".join(
        struct.pack("<HH2sH", 0x0019 + 2 * (number >> 15), number & 0x7FFF, b"LO", 0)
        for number in range(min(size // 8, 3 << 15))
    )
    return data[:at] + filler + data[at:]
