"""A file that came from outside as a dataset: the one way to have pydicom read it.

pydicom inflates a deflated file whole, whatever it holds, and fails in many ways at what isn't DICOM. Here
it gets no more than is wanted, and what it can't read is NotDicom. Values are decoded when they are looked
at: `readable` is for that. To load pydicom takes a second and 60 MiB, and waits for the first who needs it.
"""

from __future__ import annotations

import asyncio
import gc
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, Final

from gateway.dicom.inflation import Inflation, Oversized
from gateway.dicom.part10 import DEFLATED, MAX_HEADER, PIXELS, NotDicom, read_meta

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import FileDataset


_RAISED: Final = (
    *(EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RecursionError),
    *(OverflowError, struct.error),
)
_FIRST_LOOK: Final = 4096
_PIECE: Final = 64 * 1024
_MOST_BEFORE_PIXELS: Final = 64 * 2**20
_MOST_WHOLE: Final = 512 * 2**20  # it is held in memory
_PLAIN: Final = b"1.2.840.10008.1.2.1\0\0\0"  # as long as the uid of the deflated


async def loaded() -> None:
    """For whoever meets the first study on the event loop, which mustn't stand still for a second."""
    if "pydicom" not in sys.modules:
        await asyncio.to_thread(_load)


def _load() -> ModuleType:
    is_there = "pydicom" in sys.modules
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values
    if not is_there:
        gc.freeze()  # from now on it is, and large
    return pydicom


def unreadable() -> tuple[type[BaseException], ...]:
    """What pydicom is seen to raise on bytes that aren't DICOM; one that nests without end exhausts the
    stack."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return InvalidDicomError, BytesLengthException, *_RAISED


def read_whole(path: Path) -> FileDataset:
    pydicom = _load()
    with readable(), path.open("rb") as file:
        unpacked = _unpack(file, _MOST_WHOLE, whole=True)
        return pydicom.dcmread(file) if unpacked is None else _as_deflated(pydicom.dcmread(unpacked))


def read_before(
    source: Path | BinaryIO, before: int = PIXELS, keywords: Collection[str] | None = None
) -> FileDataset:
    """What stands before this tag, of that only what is named. The beginning of a file is enough, and of one
    that is open, and not deflated, no more is read."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_before(file, before, keywords)

    def is_reached(tag: int, _vr: str | None, _length: int) -> bool:
        return tag >= before

    _load()
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    wanted = None if keywords is None else [Tag(keyword) for keyword in keywords]
    with readable():
        unpacked = _unpack(source, _MOST_BEFORE_PIXELS, whole=False)
        if unpacked is None:
            return read_partial(source, is_reached, specific_tags=wanted)  # type: ignore[arg-type]
        return _as_deflated(read_partial(unpacked, is_reached, specific_tags=wanted))  # type: ignore[arg-type]


@contextmanager
def readable() -> Iterator[None]:
    """pydicom's own words quote values, so they aren't repeated."""
    try:
        yield
    except NotDicom:
        raise
    except unreadable() as error:
        raise NotDicom(f"an instance can't be read ({type(error).__name__})") from None


def _unpack(file: BinaryIO, most: int, *, whole: bool) -> BytesIO | None:
    """The file as it would be if it weren't deflated, if it is: all of it, or as much of its beginning."""
    head = file.read(_FIRST_LOOK)
    if head[128:132] == b"DICM" and read_meta(head) is None:
        head += file.read(MAX_HEADER)
    meta = read_meta(head) if head[128:132] == b"DICM" else None
    if meta is None or meta.transfer_syntax != DEFLATED:
        file.seek(0)
        return None
    file.seek(meta.dataset)
    unpacked = BytesIO()
    unpacked.write(head[: meta.dataset].replace(DEFLATED.encode(), _PLAIN, 1))
    inflation = Inflation()
    for piece in _inflate(file, inflation):
        unpacked.write(piece)
        if unpacked.tell() > most:
            if whole:
                raise Oversized("an instance is too large, when inflated, to be held in memory")
            break
    if whole and not inflation.at_end:
        raise NotDicom("a deflated instance is cut off")
    unpacked.seek(0)
    return unpacked


def _inflate(file: BinaryIO, inflation: Inflation) -> Iterator[bytes]:
    while packed := file.read(_PIECE):
        yield from inflation.feed(packed)


def _as_deflated(dataset: FileDataset) -> FileDataset:
    from pydicom.uid import UID

    dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    return dataset
