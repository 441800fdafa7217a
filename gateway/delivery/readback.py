"""Whether an archive really holds what was sent to it, instance by instance.

Archives write the file meta information anew, and many put the patient's and the order's attributes right
on arrival: that is no loss. Other content under our UID is.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import aiohttp
import pydicom
from pydicom.dataset import Dataset

from gateway.contract import Header, NeedsHuman
from gateway.dicom import web
from gateway.dicom.part10 import MAX_HEADER, dataset_start, read_header
from gateway.dicom.stream import instances_of

_DOING = "reading results back"
_CHUNK = 1024 * 1024
_REPORT_CONTENT = range(0x0040A000, 0x0040B000)
_ADMINISTRATION = frozenset((0x0032, 0x0038, 0x0040, 0x0088, 0x0100, 0x0400, 0x4008, 0xFFFA, 0xFFFC))


class Standing(Enum):
    SAME = "same"
    COERCED = "coerced"  # same content, other patient's or order's attributes
    OTHER = "other"
    MISSING = "missing"


async def read_back(
    session: aiohttp.ClientSession, peer: web.WebPeer, files: Sequence[Path]
) -> dict[str, Standing]:
    """By SOP instance UID, what the archive returns for each of these files."""
    standings: dict[str, Standing] = {}
    for file in files:
        header = await asyncio.to_thread(_read_header, file)
        returned = file.with_name(f".{file.name}.returned")
        try:
            if await _fetch(session, peer, header, returned):
                standings[header.sop_instance_uid] = await asyncio.to_thread(_compare, file, returned)
            else:
                standings[header.sop_instance_uid] = Standing.MISSING
        finally:
            returned.unlink(missing_ok=True)
    return standings


def _read_header(file: Path) -> Header:
    with file.open("rb") as opened:
        header = read_header(opened.read(MAX_HEADER))
    if header is None:
        raise NeedsHuman("a result is a cut-off DICOM instance", "Have the vendor's result fetched again.")
    return header


async def _fetch(session: aiohttp.ClientSession, peer: web.WebPeer, wanted: Header, into: Path) -> bool:
    uids = (wanted.study_instance_uid, wanted.series_instance_uid, wanted.sop_instance_uid)
    async with web.get(session, peer, peer.address(*uids), web.ACCEPT_DICOM, _DOING) as answer:
        if answer.status in (204, 404):
            return False
        found = False
        async for instance in instances_of(answer, peer.name, _DOING):
            if instance.header.sop_instance_uid != wanted.sop_instance_uid:
                continue
            found = True
            with await asyncio.to_thread(into.open, "wb") as opened:
                async for chunk in instance.chunks():
                    await asyncio.to_thread(opened.write, chunk)
        return found


def _compare(sent: Path, returned: Path) -> Standing:
    if _dataset_digest(sent) == _dataset_digest(returned):
        return Standing.SAME
    ours, theirs = pydicom.dcmread(sent), pydicom.dcmread(returned)
    same = _content_of(ours) == _content_of(theirs) and ours.SOPClassUID == theirs.SOPClassUID
    return Standing.COERCED if same else Standing.OTHER


def _dataset_digest(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        opened.seek(dataset_start(opened.read(MAX_HEADER)) or 0)
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _content_of(dataset: Dataset) -> Dataset:
    """Pixels, overlays, annotations, report text: what somebody will look at."""
    content = Dataset()
    for element in dataset:
        tag = element.tag
        if tag in _REPORT_CONTENT or (
            tag.group >= 0x0028 and not tag.is_private and tag.group not in _ADMINISTRATION
        ):
            content.add(element)
    return content
