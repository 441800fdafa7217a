"""Packed bytes, unpacked piece by piece and up to a limit: two megabytes may hold six gigabytes.

Label maps pack by hundreds, so that the ratio counts only for what is large besides. It takes as long as it
takes: the event loop leaves it to a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from gateway.dicom.part10 import NotDicom

_AT_ONCE: Final = 64 * 1024  # each piece costs a copy of what is left of it
_PIECE: Final = 2**20
_PLAUSIBLE: Final = 256 * 2**20
_PLAUSIBLE_RATIO: Final = 100
_MOST: Final = 4 * 2**30


class Oversized(NotDicom):
    """Far more than any real object holds."""


class Inflation:
    """Of a deflated dataset, or of `gzip`, which may have several members."""

    def __init__(self, *, gzip: bool = False) -> None:
        self._gzip = gzip
        self._came = self._size = 0
        self._begin()

    @property
    def at_end(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """What is in it; NotDicom, if it can't be unpacked or holds too much. Behind a deflated dataset
        there is nothing but padding."""
        for begin in range(0, len(data), _AT_ONCE):
            yield from self._unpack(bytes(data[begin : begin + _AT_ONCE]))

    def _unpack(self, packed: bytes) -> Iterator[bytes]:
        self._came += len(packed)
        more = True
        try:
            while more:
                if self._stream.eof:
                    if not self._gzip:
                        return
                    self._begin()
                piece = self._stream.decompress(packed, _PIECE)
                self._size += len(piece)
                if self._size > min(_MOST, max(_PLAUSIBLE, _PLAUSIBLE_RATIO * self._came)):
                    raise Oversized("what an instance holds packed is larger than any real one")
                if piece:
                    yield piece
                packed = self._stream.unconsumed_tail or self._stream.unused_data
                more = bool(packed) or len(piece) == _PIECE
        except zlib.error:
            raise NotDicom("a deflated instance can't be inflated") from None

    def _begin(self) -> None:
        self._stream = zlib.decompressobj(31 if self._gzip else -zlib.MAX_WBITS)
