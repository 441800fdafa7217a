"""What Milvue made of a study, out of its answers and into files: counted, bounded, looked into.

The same truth comes in many dresses: parts that may be gzip, a JSON in place of the parts or among them, an
empty multipart, a list of signed urls. "Still running", "nothing found" and "not in the contract" are never
taken for one another.
"""

from __future__ import annotations

from typing import Any, Literal

import aiohttp

from adapters.milvue.wire import Wire, check_signed, heard, refusal
from gateway.contract import NeedsHuman, Permanent, Retryable
from gateway.dicom.multipart import Data, Malformed, Parser, PartBegin, boundary_of, media_type_of
from gateway.kit.shelf import ResultFile, Shelf, another_study

Outcome = Literal["running", "empty", "done"]

_MOST_JSON = 16 * 2**20


class NotOffered(NeedsHuman):
    """One command isn't to be had, whatever the others are."""


class Unknown(Retryable):
    """Neither a result nor that there is none."""


def interpret(said: dict[str, Any], command: str) -> Outcome:
    """What a JSON that stands in place of results says."""
    status = str(said.get("status", "")).lower()
    if status in ("running", "empty", "done"):
        return status  # type: ignore[return-value]
    if status == "forbidden":
        raise NotOffered(
            f"Milvue's contract doesn't include {command}",
            "Have the product added to the contract or take it out of the adapter's `commands`, then resume.",
            said=heard(said),
        )
    if status == "error":
        raise Permanent(
            f"Milvue couldn't analyse the study with {command}",
            "Milvue's support can tell the reason.",
            said=heard(said),
        )
    if "formatting" in str(said.get("message", "")).lower():
        raise Permanent(
            f"Milvue has analysed the study, but can't render the result of {command}",
            "Try other rendering options (`output_format` and the report formats), or ask Milvue's support.",
            said=heard(said),
        )
    raise Unknown(f"Milvue's answer to the results of {command} says nothing that is known")


def check_study(said: dict[str, Any], study: str) -> None:
    """An answer that names no study is taken; one that names another is not."""
    told = said.get("StudyInstanceUID")
    if told is not None and told != study:
        raise another_study("Milvue")


async def collect(wire: Wire, study: str, command: str, shelf: Shelf) -> Outcome:
    """Fetches all that one command has to give onto the shelf."""
    options = wire.options
    what = f"the results of {command}"
    params = {
        "inference_command": command,
        "signed_url": "true" if options.signed_url else "false",
        **options.rendering(),
    }
    accept = "application/json" if options.signed_url else 'multipart/related; type="application/dicom", */*'
    before = len(shelf.files)
    said: list[dict[str, Any]] = []
    async with wire.call(
        what,
        "GET",
        f"{options.url}/v3/studies/{study}",
        transfer=True,
        params=params,
        headers={"Accept": accept},
    ) as response:
        kind = media_type_of(response.headers.get("Content-Type", ""))
        if response.status == 204:
            return "empty"
        if response.status != 200:
            return await _read_refusal(wire, response, what, command)
        if kind.startswith("multipart/"):
            said = await _take_parts(wire, response, shelf, what)
        elif kind == "application/json":
            said = [await wire.read_json(response, what)]
        elif kind.startswith("application/dicom"):
            await _take_file(wire, response, shelf, what, gzipped=kind.endswith("gzip"))
        else:
            raise Retryable(
                f"Milvue's answer to {what} is neither DICOM nor JSON",
                "If it stays so, look for a proxy between the gateway and Milvue that answers in its place.",
            )
    outcomes: set[Outcome] = set()
    for each in said:
        check_study(each, study)
        outcome = interpret(each, command)
        outcomes.add(outcome)
        if outcome == "done":
            await _fetch_signed(wire, each, shelf, what, had_parts=kind.startswith("multipart/"))
    if "running" in outcomes:
        return "running"
    return "done" if len(shelf.files) > before else "empty"


async def _read_refusal(wire: Wire, response: aiohttp.ClientResponse, what: str, command: str) -> Outcome:
    """An error status may carry the same JSON; what it says counts more than the number, where it is sure."""
    if response.status in (401, 429):
        raise refusal(response, what, {})
    try:
        said = await wire.read_json(response, what)
    except Retryable:
        raise refusal(response, what, {}) from None
    known = said.get("status") in ("running", "empty", "forbidden")
    if known or "formatting" in str(said.get("message", "")).lower():
        return interpret({**said, "status": said["status"] if known else ""}, command)
    raise refusal(response, what, said)


async def _take_parts(
    wire: Wire, response: aiohttp.ClientResponse, shelf: Shelf, what: str
) -> list[dict[str, Any]]:
    """DICOM parts go to the shelf as they come, JSON parts are returned."""
    said: list[dict[str, Any]] = []
    file: ResultFile | None = None
    text = bytearray()
    spoken = 0
    try:
        parser = Parser(boundary_of(response.headers["Content-Type"]))
        async for chunk in wire.chunks_of(response, what):
            for event in parser.feed(chunk):
                if isinstance(event, PartBegin):
                    kind = media_type_of(event.headers.get("content-type", "application/dicom"))
                    text.clear()
                    if kind != "application/json":
                        zipped = kind.endswith("gzip") or event.headers.get("content-encoding") == "gzip"
                        file = shelf.begin(gzipped=zipped)
                elif isinstance(event, Data):
                    if file is not None:
                        await file.write(event.data)
                    elif (spoken := spoken + len(event.data)) > _MOST_JSON:
                        raise Retryable(f"Milvue's answer to {what} is far too long")
                    else:
                        text += event.data
                elif file is not None:
                    await file.finish()
                    file = None
                else:
                    said.append(await wire.decode(bytes(text), what))
        parser.close()
    except Malformed:
        raise Retryable(f"Milvue's answer to {what} is cut off or broken") from None
    finally:
        if file is not None:
            file.close()
    return said


async def _take_file(
    wire: Wire, response: aiohttp.ClientResponse, shelf: Shelf, what: str, *, gzipped: bool
) -> None:
    file: ResultFile | None = None
    try:
        async for chunk in wire.chunks_of(response, what):
            if file is None:
                file = shelf.begin(gzipped=gzipped or chunk[:2] == b"\x1f\x8b")
            await file.write(chunk)
        if file is None:
            raise Retryable("Milvue sent an empty file as a result")
        await file.finish()
    finally:
        if file is not None:
            file.close()


async def _fetch_signed(
    wire: Wire, said: dict[str, Any], shelf: Shelf, what: str, *, had_parts: bool
) -> None:
    urls = said.get("signed_urls")
    if urls is None and had_parts:
        return
    if not isinstance(urls, list):
        raise Retryable(f"Milvue says that {what} are done, but gives none")
    for url in urls:
        async with wire.call_signed(what, "GET", check_signed(url, wire.options)) as response:
            if response.status in (403, 404, 410):
                raise Retryable(f"a signed url for {what} is no longer valid; new ones are asked for")
            if response.status != 200:
                raise await wire.refuse(response, what)
            await _take_file(wire, response, shelf, what, gzipped=False)
