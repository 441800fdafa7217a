"""A vendor's result objects on their way into files: under names of our own, within limits on all of them
together, unpacked where they come packed, whole and of the study in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.contract import Header, NeedsHuman, Retryable
from gateway.dicom.inflation import Inflation, Oversized
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import check_whole
from gateway.kit.folder import gauge, writing

_MOST_FILES = 10_000
_PIECE = 256 * 1024


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
                await file.write(chunk)
            await file.finish()
        finally:
            file.close()


class ResultFile:
    def __init__(self, shelf: Shelf, path: Path, *, gzipped: bool) -> None:
        self._shelf = shelf
        self._path = path
        self._inflation = Inflation(gzip=True) if gzipped else None
        with writing():
            self._gauge = gauge(path.parent)
            self._file = path.open("wb")
        self._waiting = bytearray()

    async def write(self, data: bytes | memoryview) -> None:
        """Most results are small, and a thread for each piece would cost more than the writing."""
        self._waiting += data
        if len(self._waiting) >= _PIECE:
            waiting, self._waiting = self._waiting, bytearray()
            await asyncio.to_thread(self._write_or_give_room, waiting)

    def _write_or_give_room(self, data: bytearray) -> None:
        try:
            self._write(memoryview(data))
        except Retryable:
            self._path.unlink(missing_ok=True)  # others need the room until the next try
            raise

    def _write(self, data: memoryview) -> None:
        if self._inflation is None:
            self._put(data)
            return
        try:
            for piece in self._inflation.feed(data):
                self._put(piece)
        except Oversized:
            raise self._too_large() from None
        except NotDicom:
            raise Retryable(f"{self._shelf.vendor} sent a result that says it is gzip, and isn't") from None

    def _put(self, data: bytes | memoryview) -> None:
        self._shelf.left -= len(data)
        if self._shelf.left < 0:
            raise self._too_large()
        with writing():
            self._gauge.count(len(data))
            self._file.write(data)

    def _too_large(self) -> Retryable:
        return Retryable(
            f"{self._shelf.vendor} sent results larger than any real ones, so no more of them is taken",
            "If they are genuine, raise the adapter's `most_result_bytes`.",
        )

    async def finish(self) -> None:
        """Raises unless it is a whole object of the study."""
        try:
            header = await asyncio.to_thread(self._end)
        except NotDicom:
            raise Retryable(
                f"{self._shelf.vendor} sent a result that isn't DICOM, or is cut off",
                "If it stays so, tell its makers.",
            ) from None
        if header.study_instance_uid != self._shelf.study:
            raise another_study(self._shelf.vendor)

    def _end(self) -> Header:
        self._write_or_give_room(self._waiting)
        self.close()
        if self._inflation is not None and not self._inflation.at_end:
            raise NotDicom("packed, and cut off")
        with writing():
            return check_whole(self._path)

    def close(self) -> None:
        with writing():
            self._file.close()


def another_study(vendor: str) -> NeedsHuman:
    return NeedsHuman(
        f"{vendor} returned a result for another study",
        "It isn't delivered. Tell its makers, and resume the job once they have mended it.",
    )
