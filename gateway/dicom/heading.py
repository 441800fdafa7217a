"""An instance's attributes without its pixels, from no more of its bytes than that takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO

from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial

from gateway.contract import NeedsHuman
from gateway.dicom.part10 import PIXELS, NotDicom, reaches

ENDS_IDENTITY = 0x00200011  # whose it is, and of which study, stands before it
_LARGEST = 256 * 2**20  # of a header: private attributes can be long
_UNREADABLE = (InvalidDicomError, NotDicom, EOFError, ValueError, TypeError, LookupError, AttributeError)


async def read_heading(chunks: AsyncIterator[bytes], before: int = PIXELS) -> tuple[FileDataset, bytes]:
    """The attributes before this tag, and the bytes that were taken; what follows can still be asked of
    `chunks`."""
    taken = bytearray()
    looked = 0
    try:
        async for chunk in chunks:
            taken += chunk
            if len(taken) < 2 * looked:
                continue  # looked at again only when there is as much more of it
            looked = len(taken)
            if reaches(bytes(taken), before) or looked > _LARGEST:
                break
        return read_partial(BytesIO(taken), lambda tag, *_: tag >= before), bytes(taken)
    except _UNREADABLE:
        raise NeedsHuman(
            "the archive has an instance of the study whose header can't be read",
            "Have the archive check the study, then resume the job.",
        ) from None
