"""Whether an archive really holds what was sent to it, instance by instance.

Archives write the file meta information anew, many put the patient's and the order's attributes right on
arrival, and some encode what they get otherwise, pixels too: that is no loss. Other content under our UID is.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal
from uuid import uuid4

from gateway.archives.archive import Archive
from gateway.contract import Header, NeedsHuman, Retryable
from gateway.dicom.part10 import MAX_HEADER, NotDicom, dataset_start, read_header
from gateway.dicom.reading import read_whole, readable
from gateway.extras import is_installed, say_missing

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_CHUNK = 1024 * 1024
_REPORT_CONTENT = range(0x0040A000, 0x0040B000)
_OF_ENCODING = (
    *("PixelData", "PhotometricInterpretation", "PlanarConfiguration", "LossyImageCompression"),
    *("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_ADMINISTRATION = frozenset((0x0032, 0x0038, 0x0040, 0x0088, 0x0100, 0x0400, 0x4008, 0xFFFA, 0xFFFC))


class Standing(Enum):
    SAME = "same"
    COERCED = "coerced"  # same content; attributes of patient or order, or the encoding, are others
    OTHER = "other"
    MISSING = "missing"


THERE = (Standing.SAME, Standing.COERCED)


async def read_back(
    archive: Archive, files: Sequence[Path], listed: Collection[str] | None = None
) -> dict[str, Standing]:
    """By SOP instance UID, what the archive returns for each of these files. `listed`: what it has at all, if
    it was asked before."""
    standings: dict[str, Standing] = {}
    for file, header in zip(files, await asyncio.to_thread(_read_headers, files), strict=True):
        uid = header.sop_instance_uid
        returned = file.with_name(f".{file.name}.returned")
        try:
            same = None
            if listed is None or uid in listed:
                same = await _fetch(archive, header, returned, file)
            if same is None:
                standings[uid] = Standing.MISSING
            else:
                standings[uid] = Standing.SAME if same else await _compare(file, returned)
        finally:
            returned.unlink(missing_ok=True)
    return standings


def _read_headers(files: Sequence[Path]) -> list[Header]:
    return [_read_header(file) for file in files]


def _read_header(file: Path) -> Header:
    with file.open("rb") as opened:
        header = read_header(opened.read(MAX_HEADER))
    if header is None:
        raise NeedsHuman("a result is a cut-off DICOM instance", "Have the vendor's result fetched again.")
    return header


async def _fetch(archive: Archive, wanted: Header, into: Path, sent: Path) -> bool | None:
    """Whether it is the same, byte by byte; None, if it isn't there."""
    uids = wanted.study_instance_uid, wanted.series_instance_uid, wanted.sop_instance_uid
    found = None
    # New each time, or what a look before left there would be taken for what the archive holds; and made only
    # by who needs one.
    folder = into.with_name(f"{into.name}-{uuid4().hex}")
    try:
        async with aclosing(archive.retrieve_instance(*uids, folder)) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid == wanted.sop_instance_uid:
                    found = await _is_same(sent, into, instance.chunks())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


async def _is_same(sent: Path, into: Path, chunks: AsyncIterator[bytes | memoryview]) -> bool:
    """If it isn't, what came is kept. Most results are small, and a thread for each piece would cost more
    than the writing."""
    mode: Literal["wb", "ab"] = "wb"
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= _CHUNK:
            await asyncio.to_thread(_write, into, mode, waiting)
            mode, waiting = "ab", bytearray()
    return await asyncio.to_thread(_end, sent, into, mode, waiting)


def _end(sent: Path, into: Path, mode: Literal["wb", "ab"], rest: bytearray) -> bool:
    if mode == "wb" and _dataset_digest(sent) == _digest_from(BytesIO(rest)):
        return True
    _write(into, mode, rest)
    return mode == "ab" and _dataset_digest(sent) == _dataset_digest(into)


def _write(into: Path, mode: Literal["wb", "ab"], data: bytearray) -> None:
    with into.open(mode) as opened:
        opened.write(data)


async def _compare(sent: Path, returned: Path) -> Standing:
    try:
        with readable():
            same = await asyncio.to_thread(_same_content, sent, returned)
    except NotDicom as error:
        raise Retryable(
            f"what an archive returned of a result can't be compared with it ({error})",
            "Have the archive check what it holds of the study.",
        ) from error
    if same is None:
        same = await _same_pixels(sent, returned)
    return Standing.COERCED if same else Standing.OTHER


def _same_content(sent: Path, returned: Path) -> bool | None:
    """None: all but the pixels, which are encoded otherwise."""
    from pydicom.uid import UID

    ours, theirs = read_whole(sent), read_whole(returned)
    if ours.SOPClassUID != theirs.SOPClassUID:
        return False
    syntaxes = {UID(dataset.file_meta.TransferSyntaxUID) for dataset in (ours, theirs)}
    if _alike(_content_of(ours), _content_of(theirs)):
        return True
    native = not any(syntax.is_encapsulated or not syntax.is_little_endian for syntax in syntaxes)
    if native or not _alike(_content_of(ours, _OF_ENCODING), _content_of(theirs, _OF_ENCODING)):
        return False
    return None


async def _same_pixels(sent: Path, returned: Path) -> bool:
    if not is_installed("reports"):
        raise NeedsHuman(
            "the archive has encoded a result's pixels otherwise than they were sent, and what could compare"
            f" them isn't there: {say_missing('reports')}",
            "Install it, and resume the job; or look at the result in the archive.",
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.delivery.pixels_process", str(sent), str(returned)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # libraries quote values there
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _dataset_digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return _digest_from(opened)


def _digest_from(opened: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    opened.seek(dataset_start(opened.read(MAX_HEADER)) or 0)
    while chunk := opened.read(_CHUNK):
        digest.update(chunk)
    return digest.digest()


def _content_of(dataset: Dataset, apart: Collection[str] = ()) -> Dataset:
    """Pixels, overlays, annotations, report text: what somebody will look at."""
    from pydicom.dataset import Dataset

    content = Dataset()
    for element in dataset:
        tag = element.tag
        if element.keyword not in apart and (
            tag in _REPORT_CONTENT
            or (tag.group >= 0x0028 and not tag.is_private and tag.group not in _ADMINISTRATION)
        ):
            content.add(element)
    return content


def _alike(ours: Dataset, theirs: Dataset) -> bool:
    """Whatever the representation of their values is called: implicit encodings don't tell it."""
    return ours.keys() == theirs.keys() and all(
        _plain(element.value) == _plain(theirs[element.tag].value) for element in ours
    )


def _plain(value: object) -> object:
    from pydicom.sequence import Sequence as Items

    if isinstance(value, Items):
        return [{element.tag: _plain(element.value) for element in item} for item in value]
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if isinstance(value, str) or value is None:
        return (value or "").strip(" \0")
    return value
