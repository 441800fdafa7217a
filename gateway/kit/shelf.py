"""A vendor's result objects on their way into files: under names of our own, within limits on all of them
together, unpacked where they come packed, whole and of the study in the end.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.contract import NeedsHuman, Retryable
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import check_whole
from gateway.kit.folder import writing

_PIECE = 2**20
_PLAUSIBLE_RATIO = 200  # images with wide black margins reach some dozens
_RATIO_COUNTS_FROM = 64 * 2**20
_MOST_FILES = 10_000


class Shelf:
    """`vendor`: how a sentence names it."""

    def __init__(self, work: Path, study: str, most_bytes: int, vendor: str = "the vendor") -> None:
        self._work = work
        self.study = study
        self.vendor = vendor
        self.left = most_bytes
        self.files: list[Path] = []

    def begin(self, *, gzipped: bool = False) -> ResultFile:
        if len(self.files) >= _MOST_FILES:
            raise Retryable(f"{self.vendor} sent more than {_MOST_FILES} result objects")
        path = self._work / f"result-{len(self.files):04d}.dcm"
        self.files.append(path)
        return ResultFile(self, path, gzipped=gzipped)

    async def keep(self, chunks: AsyncIterator[bytes]) -> None:
        file = self.begin()
        try:
            async for chunk in chunks:
                file.write(chunk)
            await file.finish()
        finally:
            file.close()


class ResultFile:
    def __init__(self, shelf: Shelf, path: Path, *, gzipped: bool) -> None:
        self._shelf = shelf
        self._path = path
        self._came = self._written = 0
        self._inflate = zlib.decompressobj(wbits=31) if gzipped else None
        with writing():
            self._file = path.open("wb")

    def write(self, data: bytes | memoryview) -> None:
        self._came += len(data)
        if self._inflate is None:
            self._put(data)
            return
        rest = bytes(data)
        try:
            pending = bool(rest)
            while pending:
                if self._inflate.eof:  # gzip may consist of several members
                    self._inflate = zlib.decompressobj(wbits=31)
                piece = self._inflate.decompress(rest, _PIECE)
                self._put(piece)
                rest = self._inflate.unconsumed_tail or self._inflate.unused_data
                pending = bool(rest) or len(piece) == _PIECE
        except zlib.error:
            raise Retryable(f"{self._shelf.vendor} sent a result that says it is gzip, and isn't") from None

    def _put(self, data: bytes | memoryview) -> None:
        self._written += len(data)
        self._shelf.left -= len(data)
        implausible = self._written > max(_RATIO_COUNTS_FROM, _PLAUSIBLE_RATIO * self._came)
        if self._shelf.left < 0 or (self._inflate is not None and implausible):
            raise Retryable(
                f"{self._shelf.vendor} sent results larger than any real ones, so no more of them is taken",
                "If they are genuine, raise the adapter's `most_result_bytes`.",
            )
        with writing():
            self._file.write(data)

    async def finish(self) -> None:
        """Raises unless it is a whole object of the study."""
        self.close()
        try:
            if self._inflate is not None and not self._inflate.eof:
                raise NotDicom("packed, and cut off")
            with writing():
                header = await asyncio.to_thread(check_whole, self._path)
        except NotDicom:
            raise Retryable(
                f"{self._shelf.vendor} sent a result that isn't DICOM, or is cut off",
                "If it stays so, tell its makers.",
            ) from None
        if header.study_instance_uid != self._shelf.study:
            raise another_study(self._shelf.vendor)

    def close(self) -> None:
        with writing():
            self._file.close()


def another_study(vendor: str) -> NeedsHuman:
    return NeedsHuman(
        f"{vendor} returned a result for another study",
        "It isn't delivered. Tell its makers, and resume the job once they have mended it.",
    )
