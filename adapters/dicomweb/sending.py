"""A study on its way to the vendor by STOW-RS: one stream of what it lacks, judged instance by instance.

A success is subtle: an answer may list failures under 200, name no instance at all, or be empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from adapters.dicomweb.wire import Wire
from gateway.contract import Failure, Instance, NeedsHuman, Permanent, Retryable, Study
from gateway.dicom import web
from gateway.dicom.multipart import Writer
from gateway.dicom.outgoing import Outgoing

_DOING = "taking the study"
_DUPLICATE = 0x0111
_PROCESSING, _RESOURCES = 0x0110, 0xA700
_WORDS = {
    _PROCESSING: "it failed in processing it",
    0x0112: "it doesn't know it",
    0x0117: "the instance is invalid",
    0x0122: "it doesn't take its SOP class",
    0x0124: "it doesn't let us store it",
    _RESOURCES: "it is out of resources",
    0xA900: "its SOP class or study doesn't match",
    0xC000: "it can't understand it",
    0xC122: "it doesn't take its transfer syntax",
}


@dataclass(slots=True)
class _Answer:
    stored: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)  # with the FailureReason


async def send(
    wire: Wire, study: Study, there: Collection[str], begin: Callable[[], None]
) -> tuple[str, ...]:
    """The SOP instance UIDs that the vendor has in the end. What is `there` already is read, not sent;
    `begin` is called if anything is."""
    walked: list[str] = []
    sent: set[str] = set()
    async with _lacking(study, there, walked) as instances:
        first = await anext(instances, None)
        if not walked:
            raise Retryable("the archive gave no instance of the study, so nothing was sent")
        if first is None:
            return tuple(walked)
        begin()
        answer = await _post(wire, first, instances, sent)
    _judge(answer.failed, len(walked))
    silent = sent - answer.stored - answer.failed.keys()
    if silent:
        silent -= (await wire.list_study(wire.front, study.study_instance_uid)).keys()
    if silent:
        raise Retryable(
            f"the vendor took {len(sent)} instances and doesn't list {len(silent)} of them",
            "It may still be taking them in; only what it lacks is sent again.",
            uncertain=True,
        )
    return tuple(walked)


@asynccontextmanager
async def _lacking(
    study: Study, there: Collection[str], walked: list[str]
) -> AsyncIterator[AsyncGenerator[Instance, None]]:
    """The archive's connection is let go when the walk is given up half-way."""
    instances = study.instances()

    async def walk() -> AsyncGenerator[Instance, None]:
        async for instance in instances:
            if instance.header.study_instance_uid != study.study_instance_uid:
                raise NeedsHuman(
                    "the archive gave an instance of another study, so the study isn't sent",
                    "Look at the study in the archive, then resume the job.",
                )
            walked.append(instance.header.sop_instance_uid)
            if instance.header.sop_instance_uid not in there:
                yield instance
                continue
            async for _ in instance.chunks():  # counted and hashed all the same, as part of the proof
                pass

    walking = walk()
    try:
        yield walking
    finally:
        await walking.aclose()
        close = getattr(instances, "aclose", None)
        if close is not None:
            await close()


async def _post(
    wire: Wire, first: Instance, others: AsyncGenerator[Instance, None], sent: set[str]
) -> _Answer:
    writer = Writer()

    async def write() -> AsyncGenerator[bytes | memoryview, None]:
        instance: Instance | None = first
        while instance is not None:
            yield writer.begin()
            async for chunk in instance.chunks():
                yield chunk
            sent.add(instance.header.sop_instance_uid)
            instance = await anext(others, None)
        yield writer.end()

    options, peer = wire.options, wire.front
    limits = aiohttp.ClientTimeout(
        total=options.upload_timeout,
        connect=options.connect_timeout,
        sock_connect=options.connect_timeout,
        sock_read=options.read_timeout,
    )
    body = Outgoing(write(), options.read_timeout)
    try:
        with web.translated(peer.name, _DOING, writes=True):
            async with asyncio.timeout(None) as body.patience:
                async with wire.session.post(
                    peer.address("studies"),
                    data=body.stream(),
                    headers={
                        **wire.headers(peer, web.ACCEPT_JSON),
                        "Content-Type": writer.content_type,
                    },
                    timeout=limits,
                    allow_redirects=False,
                ) as answer:
                    return await _read(answer, peer, body, sent)
    except Failure as failure:
        raise body.trouble or failure from None
    finally:
        await body.close()


async def _read(
    answer: aiohttp.ClientResponse, peer: web.WebPeer, body: Outgoing, sent: Collection[str]
) -> _Answer:
    if answer.status not in (200, 202, 204, 409):
        raise web.refusal_of(answer, peer.name, _DOING, writes=True)
    item: web.Item = {}
    empty = answer.status == 204 or answer.headers.get("Content-Length") == "0"
    if not empty and not (answer.status == 409 and "json" not in answer.headers.get("Content-Type", "")):
        try:
            items = await web.read_items(answer, peer.name, _DOING)
        except Retryable as failure:
            failure.uncertain = True  # it said yes, whatever else it said
            raise
        item = items[0] if items else {}
    if not body.complete:
        raise Retryable("the vendor answered before it had the whole study", uncertain=True)
    read = _outcome_of(item, sent)
    if answer.status == 409 and not read.failed:
        raise Permanent(
            "the vendor refused the whole study (409) and doesn't say why",
            "Ask the vendor whether it takes studies of this kind.",
        )
    return read


def _outcome_of(item: web.Item, sent: Collection[str]) -> _Answer:
    read = _Answer()
    for one in web.values_of(item, "00081199"):
        if isinstance(one, dict) and (uid := web.text_of(one, "00081155")):
            read.stored.add(uid)
    for one in web.values_of(item, "00081198"):
        # One that names no instance could be any of them: then all that isn't stored has failed.
        if isinstance(one, dict) and one:
            reason = web.number_of(one, "00081197") or 0
            uid = web.text_of(one, "00081155")
            named = [uid] if uid else [each for each in sent if each not in read.stored]
            read.failed |= dict.fromkeys(named, reason)
    return read


def _judge(failed: Mapping[str, int], count: int) -> None:
    refused = [reason for reason in failed.values() if reason != _DUPLICATE]
    if not refused:
        return
    said = f"refused {len(refused)} of {count} instances: {'; '.join(sorted(set(map(_describe, refused))))}."
    if all(reason == _PROCESSING or reason & 0xFF00 == _RESOURCES for reason in refused):
        raise Retryable(f"the vendor {said}", "Only what it lacks is sent again.", uncertain=True)
    raise Permanent(
        f"the vendor {said}",
        "Choose only instances that it takes (`choose` of the application), or ask the vendor.",
        detail={"refused": {uid: _describe(reason) for uid, reason in failed.items()}},
    )


def _describe(reason: int) -> str:
    for known in (reason, reason & 0xFF00, reason & 0xF000):
        if known in _WORDS:
            return f"{_WORDS[known]} ({reason:04X})"
    return f"reason {reason:04X}"
