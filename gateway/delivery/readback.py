"""Whether an archive really holds what was sent to it, instance by instance.

Archives write the file meta information anew, many put the patient's and the order's attributes right on
arrival, and some encode what they get otherwise, pixels too: that is no loss. Other content under our UID is.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Collection, Sequence
from contextlib import aclosing
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from gateway.archives.archive import Archive
from gateway.contract import Header, NeedsHuman
from gateway.dicom.part10 import MAX_HEADER, dataset_start, read_header

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
    for file in files:
        header = await asyncio.to_thread(_read_header, file)
        uid = header.sop_instance_uid
        returned = file.with_name(f".{file.name}.returned")
        try:
            here = (listed is None or uid in listed) and await _fetch(archive, header, returned)
            standings[uid] = await _compare(file, returned) if here else Standing.MISSING
        finally:
            returned.unlink(missing_ok=True)
    return standings


def _read_header(file: Path) -> Header:
    with file.open("rb") as opened:
        header = read_header(opened.read(MAX_HEADER))
    if header is None:
        raise NeedsHuman("a result is a cut-off DICOM instance", "Have the vendor's result fetched again.")
    return header


async def _fetch(archive: Archive, wanted: Header, into: Path) -> bool:
    uids = wanted.study_instance_uid, wanted.series_instance_uid, wanted.sop_instance_uid
    found = False
    with TemporaryDirectory(dir=into.parent) as folder:
        async with aclosing(archive.retrieve_instance(*uids, Path(folder))) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid == wanted.sop_instance_uid:
                    found = True
                    with await asyncio.to_thread(into.open, "wb") as opened:
                        async for chunk in instance.chunks():
                            await asyncio.to_thread(opened.write, chunk)
    return found


async def _compare(sent: Path, returned: Path) -> Standing:
    if await asyncio.to_thread(_dataset_digest, sent) == await asyncio.to_thread(_dataset_digest, returned):
        return Standing.SAME
    same = await asyncio.to_thread(_same_content, sent, returned)
    if same is None:
        same = await _same_pixels(sent, returned)
    return Standing.COERCED if same else Standing.OTHER


def _same_content(sent: Path, returned: Path) -> bool | None:
    """None: all but the pixels, which are encoded otherwise."""
    ours, theirs = pydicom.dcmread(sent), pydicom.dcmread(returned)
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
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        opened.seek(dataset_start(opened.read(MAX_HEADER)) or 0)
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _content_of(dataset: Dataset, apart: Collection[str] = ()) -> Dataset:
    """Pixels, overlays, annotations, report text: what somebody will look at."""
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
    if isinstance(value, Items):
        return [{element.tag: _plain(element.value) for element in item} for item in value]
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if isinstance(value, str) or value is None:
        return (value or "").strip(" \0")
    return value
