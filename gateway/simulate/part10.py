"""Reads the DICOM files that reach the simulated servers, and refuses what isn't one."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from gateway.simulate.multipart import Malformed, parse_content_type, read_parts

NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
BROKEN = (ClientError, ConnectionError, HttpProcessingError)
UNREADABLE = (InvalidDicomError, EOFError, ValueError, KeyError, OSError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Instance:
    header: Dataset  # without its pixels
    data: bytes

    @property
    def study(self) -> str:
        return str(self.header.StudyInstanceUID)

    @property
    def series(self) -> str:
        return str(self.header.SeriesInstanceUID)

    @property
    def sop(self) -> str:
        return str(self.header.SOPInstanceUID)

    @property
    def sop_class(self) -> str:
        return str(self.header.SOPClassUID)

    @property
    def syntax(self) -> str:
        return str(self.header.file_meta.TransferSyntaxUID)


def read_instance(data: bytes) -> Instance:
    try:
        header = dcmread(io.BytesIO(data), stop_before_pixels=True)
    except UNREADABLE as wrong:
        raise Malformed("a part isn't a DICOM file") from wrong
    if any(not header.get(keyword) for keyword in NEEDED):
        raise Malformed("a DICOM file lacks one of its UIDs")
    if str(header.SOPInstanceUID) != str(header.file_meta.get("MediaStorageSOPInstanceUID")):
        raise Malformed("the file meta information names another instance")
    header.buffer = None  # or it would hold the whole file
    return Instance(header, data)


def measure_pixels(instance: Instance) -> int:
    try:
        return len(dcmread(io.BytesIO(instance.data)).get("PixelData") or b"")
    except UNREADABLE as wrong:
        raise Malformed("a DICOM file ends early") from wrong


async def read_body(request: web.Request) -> bytes:
    """Raises `Malformed` when the connection breaks before the end."""
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
    except BROKEN as broken:
        raise Malformed("the connection broke") from broken
    return bytes(body)


async def read_posted(request: web.Request) -> AsyncIterator[bytes]:
    """The bytes of the files in a STOW request, one after the other.

    A connection that breaks raises `Malformed` too: nothing of such a request may count as arrived.
    """
    kind, parameters = parse_content_type(request.headers.get("Content-Type", ""))
    if kind != "multipart/related" or parameters.get("type") != "application/dicom":
        raise web.HTTPUnsupportedMediaType(
            text='Content-Type has to be multipart/related; type="application/dicom"; boundary=…'
        )
    try:
        async for headers, body in read_parts(request.content.iter_any(), parameters.get("boundary", "")):
            if parse_content_type(headers.get("content-type", ""))[0] != "application/dicom":
                raise Malformed("a part isn't of type application/dicom")
            yield body
    except BROKEN as broken:
        raise Malformed("the connection broke") from broken


def decompress(instance: Instance) -> tuple[bytes, str]:
    """What archives do to images when they aren't asked for the stored transfer syntax."""
    if not UID(instance.syntax).is_compressed:
        return instance.data, instance.syntax
    whole = dcmread(io.BytesIO(instance.data))
    whole.decompress(generate_instance_uid=False)
    buffer = io.BytesIO()
    whole.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue(), str(whole.file_meta.TransferSyntaxUID)
