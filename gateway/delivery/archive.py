"""Results into an archive (STOW-RS), believed only once they were read back.

An archive may answer 200 and have stored nothing new: a known SOP instance UID keeps its old bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Failure, Header, NeedsHuman, Retryable
from gateway.delivery.readback import Standing, read_back
from gateway.dicom import web
from gateway.dicom.multipart import Writer
from gateway.dicom.part10 import MAX_HEADER, NotDicom, read_header
from gateway.dicom.storing import StowOutcome, describe, describe_all, kinds_not_taken, may_pass, outcome_of

_CHUNK = 1024 * 1024
_DOING = "storing results"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the archive was seen to hold. `remarks`: what it said or changed, instance by instance.
    `not_taken`: with the reason, what is of a kind that it doesn't take; all else is there."""

    count: int
    reference: str | None
    remarks: tuple[str, ...] = ()
    not_taken: Mapping[str, int] = field(default_factory=dict)


async def store(
    session: aiohttp.ClientSession,
    archive: DicomwebArchive,
    files: Sequence[Path],
    study_instance_uid: str,
    plainer: Collection[str] = (),
) -> Stored:
    """Store the files and read them back; what isn't there afterwards as it was sent is a failure. `plainer`:
    there is an older form of these, so that any refusal that lasts is one of their kind."""
    peer = archive.peer
    outcome = await stow(session, peer, files, study_instance_uid)
    not_taken = kinds_not_taken(outcome.refused, plainer)
    if refused := {uid: reason for uid, reason in outcome.refused.items() if uid not in not_taken}:
        raise _failure_of(peer, refused, len(files))
    standings = await read_back(archive, files)
    standings = {uid: standing for uid, standing in standings.items() if uid not in not_taken}
    lacking = [uid for uid, standing in standings.items() if standing is Standing.MISSING]
    if lacking:
        raise Retryable(
            f"the {peer.name} took {len(files)} results and doesn't have {len(lacking)} of them",
            "It may still be taking them in; if this goes on, look into its log.",
        )
    others = [uid for uid, standing in standings.items() if standing is Standing.OTHER]
    if others:
        raise NeedsHuman(
            f"the {peer.name} holds something else under the UIDs of {len(others)} of {len(files)} results",
            "It keeps what it had: remove the old instances there, then resume the job.",
            detail={"other": others},
        )
    remarks = [f"{uid}: {describe(reason)}" for uid, reason in outcome.warned.items()]
    remarks += [
        f"{uid}: the archive keeps it with changed attributes, or encoded otherwise"
        for uid, standing in standings.items()
        if standing is Standing.COERCED and uid not in outcome.warned
    ]
    return Stored(len(standings), outcome.reference, tuple(remarks), not_taken)


async def stow(
    session: aiohttp.ClientSession, peer: web.WebPeer, files: Sequence[Path], study_instance_uid: str
) -> StowOutcome:
    """Send the files, and read what the archive says of each; it isn't asked whether that is true."""
    if not files:
        return StowOutcome()
    sent, small = await asyncio.to_thread(_open, files, study_instance_uid)
    writer = Writer()
    frame = [writer.begin() for _ in files]
    end = writer.end()
    size = sum(map(len, frame)) + len(end) + sum(file.stat().st_size for file in files)
    # Not every archive takes a body of untold length.
    headers = {"Content-Type": writer.content_type, "Content-Length": str(size)}
    address, body = peer.address(study_instance_uid), _stream(files, small, frame, end)
    async with web.post(session, peer, address, body, _DOING, headers) as (answer, _):
        if answer.status not in (200, 202, 204, 409):
            raise web.refusal_of(answer, peer.name, _DOING, writes=True)
        outcome = outcome_of(await _read_answer(answer, peer), sent)
        if answer.status == 409 and not outcome.failed:
            raise NeedsHuman(
                f"the {peer.name} refused all {len(files)} results (409) and doesn't say why",
                "Look into its log: does it take results of this study and of this kind?",
            )
        return outcome


def _open(files: Sequence[Path], study_instance_uid: str) -> tuple[set[str], dict[Path, bytes]]:
    """The UIDs, and what needn't be read again: small files, up to a piece in all."""
    uids, small, room = set(), {}, _CHUNK
    for file in files:
        begin = _read(file, 0, MAX_HEADER)
        uids.add(_header_in(begin, study_instance_uid).sop_instance_uid)
        if len(begin) <= room:
            small[file] = begin
            room -= len(begin)
    return uids, small


def _header_in(begin: bytes, study_instance_uid: str) -> Header:
    try:
        header = read_header(begin)
    except NotDicom as error:
        raise NeedsHuman(
            f"a result is no DICOM instance ({error})", "Ask the vendor what it has returned."
        ) from error
    if header is None:
        raise NeedsHuman("a result is a cut-off DICOM instance", "Have the vendor's result fetched again.")
    if header.study_instance_uid != study_instance_uid:
        raise NeedsHuman(
            "a result belongs to another study than the job's; nothing was stored",
            "Compare the vendor's result with the patient before anything else is done.",
        )
    return header


async def _stream(
    files: Sequence[Path], small: Mapping[Path, bytes], frame: Sequence[bytes], end: bytes
) -> AsyncGenerator[bytes | memoryview, None]:
    """Small ones leave together: each piece is a write of its own on the wire."""
    waiting = bytearray()
    for file, begin in zip(files, frame, strict=True):
        waiting += begin
        if file in small:
            waiting += small[file]
            continue
        yield bytes(waiting)
        waiting.clear()
        at, size = 0, file.stat().st_size
        while at < size and (chunk := await asyncio.to_thread(_read, file, at, _CHUNK)):
            yield chunk
            at += len(chunk)
    yield bytes(waiting + end)


def _read(file: Path, at: int, most: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(at)
        return opened.read(most)


async def _read_answer(answer: aiohttp.ClientResponse, peer: web.WebPeer) -> web.Item:
    """A success without a word is possible; the reading back will tell."""
    if answer.status in (204, 409) and "json" not in answer.headers.get("Content-Type", ""):
        return {}
    if answer.headers.get("Content-Length") == "0":
        return {}
    items = await web.read_items(answer, peer.name, _DOING)
    return items[0] if items else {}


def _failure_of(peer: web.WebPeer, refused: Mapping[str, int], count: int) -> Failure:
    reasons = describe_all(refused.values())
    message = f"the {peer.name} refused {len(refused)} of {count} results: {reasons}"
    if may_pass(refused.values()):
        return Retryable(message, "If this goes on, look into the archive's log and its disk.")
    return NeedsHuman(
        message,
        "Have the archive accept these results, then resume the job.",
        detail={"refused": {uid: describe(reason) for uid, reason in refused.items()}},
    )
