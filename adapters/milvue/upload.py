"""The study on its way to Milvue: as one stream, or its headers first and then each instance to a signed url.

Signed urls are written down in the work folder, readable by us alone, so that an upload that broke goes on
with the instances that are missing. They are never told to anyone: whoever has one may write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.milvue.wire import Options, Wire, check_signed
from gateway.contract import Instance, NeedsHuman, Permanent, Retryable, Study
from gateway.dicom.multipart import Writer
from gateway.dicom.part10 import MAX_HEADER, PIXELS, NotDicom, reaches, without_pixels
from gateway.kit.folder import note, put_down, read, recall
from gateway.kit.walk import walking

_NOTES = "upload.json"
Chunks = AsyncGenerator[bytes | memoryview, None]


async def send_whole(wire: Wire, study: Study) -> None:
    await _store(wire, study.study_instance_uid, _whole_parts(study), signed=False)


async def send_by_signed_urls(wire: Wire, study: Study, work: Path) -> tuple[str, ...]:
    """The SOP instance UIDs that were acknowledged. The urls are noted in the work folder: only who doesn't
    find them there announces what is missing anew."""
    urls = _recall_urls(work, study.study_instance_uid)
    if not urls:
        announced: set[str] = set()
        said = await _store(wire, study.study_instance_uid, _header_parts(study, announced), signed=True)
        urls = _read_urls(said, wire.options)
        if urls.keys() - announced:
            await study.begin_anew()
            raise Retryable("Milvue asks for more than it was told of now; the whole study is sent anew")
        note(work / _NOTES, {"study": study.study_instance_uid, "urls": urls})
    done = []
    async with walking(study) as instances:
        async for instance in instances:
            await _put(wire, instance, urls, work)
            await study.acknowledge(instance.header.sop_instance_uid)
            done.append(instance.header.sop_instance_uid)
    _forget_urls(work)
    return tuple(done)


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


def _header_parts(study: Study, announced: set[str]) -> _Parts:
    writer = Writer("application/dicom")

    async def write() -> Chunks:
        async with walking(study, headings=True) as instances:
            async for instance in instances:
                head = await _read_head(instance)
                announced.add(instance.header.sop_instance_uid)
                yield writer.begin()
                yield head
        yield writer.end()

    return _Parts(writer.content_type, write())


async def _put(wire: Wire, instance: Instance, urls: Mapping[str, str], work: Path) -> None:
    what = "an instance by signed url"
    url = urls.get(instance.header.sop_instance_uid)
    if url is None:
        _forget_urls(work)
        raise Retryable("Milvue gave no signed url for one of the study's instances")
    path = work / "instance.part"
    try:
        await put_down(instance, path)
        size = path.stat().st_size
        headers = {
            "Content-Type": "application/dicom",
            "Content-Length": str(size),  # a blob store takes no body of unknown length
            "x-ms-blob-type": "BlockBlob",
        }
        body = wire.outgoing(read(path, size), what)
        async with wire.call_signed(what, "PUT", url, headers, body=body) as response:
            if response.status in (401, 403, 404, 410):
                _forget_urls(work)
                raise Retryable(
                    f"a signed url of Milvue is no longer valid ({response.status}); new ones are asked for"
                )
            if response.status not in (200, 201, 204):
                raise await wire.refuse(response, what)
    finally:
        path.unlink(missing_ok=True)


def _recall_urls(work: Path, study: str) -> dict[str, str]:
    noted = recall(work / _NOTES)
    urls = noted.get("urls") if isinstance(noted, dict) and noted.get("study") == study else None
    return urls if isinstance(urls, dict) else {}


def _forget_urls(work: Path) -> None:
    (work / _NOTES).unlink(missing_ok=True)


def _read_urls(said: dict[str, Any], options: Options) -> dict[str, str]:
    urls = said.get("signed_urls")
    if not isinstance(urls, dict) or not urls:
        raise Retryable("Milvue took the study's headers but gave no signed urls")
    return {str(uid): check_signed(url, options) for uid, url in urls.items()}


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
