"""The study on its way to Milvue: as one stream, or its headers alone, which say what will come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adapters.milvue.wire import Wire
from gateway.contract import Instance, NeedsHuman, Permanent, Retryable, Study
from gateway.dicom.multipart import Writer
from gateway.dicom.part10 import MAX_HEADER, PIXELS, NotDicom, reaches, without_pixels
from gateway.kit.walk import walking

Chunks = AsyncGenerator[bytes | memoryview, None]


async def send_whole(wire: Wire, study: Study) -> None:
    await _store(wire, study.study_instance_uid, _whole_parts(study), signed=False)


async def announce(wire: Wire, study: Study, done: Container[str]) -> tuple[dict[str, Any], set[str]]:
    """What Milvue says to the headers, and whose they were: of all instances that aren't done."""
    announced: set[str] = set()
    parts = _header_parts(study, announced, done)
    return await _store(wire, study.study_instance_uid, parts, signed=True), announced


async def _store(wire: Wire, study_uid: str, parts: _Parts, *, signed: bool) -> dict[str, Any]:
    what = "the study's headers" if signed else "the study"
    options = wire.options
    body = wire.outgoing(parts.chunks, what)
    async with wire.call(
        what,
        "POST",
        f"{options.url}/v3/studies",
        transfer=True,
        params={"signed_url": "true" if signed else "false", **options.origin()},
        headers={"Content-Type": parts.content_type, "Accept": "application/json"},
        body=body,
    ) as response:
        if response.status not in (200, 201, 202):
            raise body.trouble or await wire.refuse(response, what, uncertain=True)
        said = await wire.read_json(response, what, uncertain=True)
        if body.trouble is not None:
            raise body.trouble
        if not body.complete:
            raise Retryable("Milvue answered before it had the whole study", uncertain=True)
    told = said.get("StudyInstanceUID")
    if told is None:
        raise Retryable(f"Milvue took {what} without saying which study it is", uncertain=True)
    if told != study_uid:
        raise NeedsHuman(
            f"Milvue acknowledged {what} as another study than the one sent",
            "Ask Milvue which study it received before the job is retried.",
        )
    return said


@dataclass
class _Parts:
    content_type: str
    chunks: Chunks


def _whole_parts(study: Study) -> _Parts:
    writer = Writer("application/dicom")

    async def write() -> Chunks:
        async with walking(study) as instances:
            async for instance in instances:
                begin = writer.begin()
                async for chunk in instance.chunks():
                    yield b"".join((begin, chunk)) if begin else chunk  # one write on the wire
                    begin = b""
        yield writer.end()

    return _Parts(writer.content_type, write())


def _header_parts(study: Study, announced: set[str], done: Container[str]) -> _Parts:
    writer = Writer("application/dicom")

    async def write() -> Chunks:
        async with walking(study, headings=True) as instances:
            async for instance in instances:
                if instance.header.sop_instance_uid in done:
                    continue
                head = await _read_head(instance)
                announced.add(instance.header.sop_instance_uid)
                yield writer.begin()
                yield head
        yield writer.end()

    return _Parts(writer.content_type, write())


async def _read_head(instance: Instance) -> bytes:
    """The instance with its pixel data emptied, read no further than needed to see where those begin."""
    gathered = bytearray()
    try_at = 2**16
    async for chunk in instance.chunks():
        gathered += chunk
        if len(gathered) >= try_at:
            with suppress(NotDicom):  # perhaps only cut off here
                if reaches(bytes(gathered), PIXELS):
                    return without_pixels(bytes(gathered))
            if try_at >= MAX_HEADER:
                raise Permanent(
                    "an instance has no pixel data, or a header too long to be sent apart",
                    "Set the adapter's `signed_url: false`.",
                )
            try_at = min(2 * len(gathered), MAX_HEADER)
    try:
        return without_pixels(bytes(gathered))
    except NotDicom:
        raise Permanent(
            "the archive gave an instance that isn't readable DICOM", "Look at the study in the archive."
        ) from None
