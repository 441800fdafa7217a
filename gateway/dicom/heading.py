"""An instance's attributes without its pixels, from no more of its bytes than that takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from gateway.contract import NeedsHuman
from gateway.dicom.part10 import PIXELS, NotDicom, reaches
from gateway.dicom.reading import read_before

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset, FileDataset


ENDS_IDENTITY = 0x00200011  # whose it is, and of which study, stands before it
_LARGEST = 64 * 2**20  # of a header: private attributes can be long


def frames_of(header: Dataset) -> int:
    """How many it has; some write letters there, too."""
    raw = header.get_item("NumberOfFrames")
    told = b"" if raw is None or raw.value is None else raw.value
    found = re.match(r"\s*\+?(\d+)", told.decode("latin-1") if isinstance(told, bytes) else str(told))
    return max(1, int(found[1])) if found else 1


def place_of_frame(header: Dataset, frame: int) -> tuple[float, float] | None:
    """Its upper left corner in the whole image, where that is known."""
    if header.get("TotalPixelMatrixColumns") is None:
        return (0, 0) if frame <= frames_of(header) and (frame or frames_of(header) == 1) else None
    if not 0 < frame <= frames_of(header):
        return None
    try:
        if placed := header.get("PerFrameFunctionalGroupsSequence"):
            [place] = placed[frame - 1].PlanePositionSlideSequence
            column, row = (
                place.ColumnPositionInTotalImagePixelMatrix,
                place.RowPositionInTotalImagePixelMatrix,
            )
            return column - 1, row - 1
        across = -(-header.TotalPixelMatrixColumns // header.Columns)
        down = -(-header.TotalPixelMatrixRows // header.Rows)
    except (AttributeError, IndexError, ValueError, TypeError, ZeroDivisionError):
        return None
    row, column = divmod((frame - 1) % (across * down), across)
    return column * header.Columns, row * header.Rows


async def read_heading(chunks: AsyncIterator[bytes], before: int = PIXELS) -> tuple[FileDataset, bytes]:
    """The attributes before this tag, and the bytes that were taken; what follows can still be asked of
    `chunks`."""
    taken = await take_heading(chunks, before)
    return await asyncio.to_thread(parse_heading, taken, before), taken


async def take_heading(chunks: AsyncIterator[bytes], before: int) -> bytes:
    with _readable():
        first = await anext(chunks, b"")
        if reaches(first, before):
            return first
        taken, looked = bytearray(first), len(first)
        async for chunk in chunks:
            taken += chunk
            if len(taken) < 2 * looked:
                continue  # looked at again only when there is as much more of it
            looked = len(taken)
            if looked > _LARGEST or await asyncio.to_thread(reaches, bytes(taken), before):
                break
        return bytes(taken)


def parse_heading(taken: bytes, before: int) -> FileDataset:
    with _readable():
        return read_before(BytesIO(taken), before)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except NotDicom:
        raise NeedsHuman(
            "the archive has an instance of the study whose header can't be read",
            "Have the archive check the study, then resume the job.",
        ) from None
