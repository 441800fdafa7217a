"""A study on its way to the vendor by STOW-RS: one stream of what it lacks, judged instance by instance.

A success is subtle: an answer may list failures under 200, name no instance at all, or be empty.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection

import aiohttp

from adapters.dicomweb.wire import Wire
from gateway.contract import Instance, Permanent, Retryable, Study
from gateway.dicom import web
from gateway.dicom.multipart import Writer
from gateway.dicom.outgoing import Outgoing
from gateway.dicom.storing import StowOutcome, describe, describe_all, may_pass, outcome_of
from gateway.kit.walk import walking

_DOING = "taking the study"


async def send(
    wire: Wire, study: Study, there: Collection[str], begin: Callable[[], None]
) -> tuple[str, ...]:
    """The SOP instance UIDs that the vendor has in the end. What is `there` already is read, not sent;
    `begin` is called if anything is."""
    walked: list[str] = []
    sent: set[str] = set()
    async with walking(study) as instances:
        lacking = _lacking(instances, there, walked)
        first = await anext(lacking, None)
        if first is None:
            return tuple(walked)
        begin()
        outcome = await _post(wire, first, lacking, sent)
    _judge(outcome, len(walked))
    silent = set(outcome.unconfirmed)
    if silent:
        silent -= (await wire.list_study(wire.front, study.study_instance_uid)).keys()
    if silent:
        raise Retryable(
            f"the vendor took {len(sent)} instances and doesn't list {len(silent)} of them",
            "It may still be taking them in; only what it lacks is sent again.",
            uncertain=True,
        )
    return tuple(walked)


async def _lacking(
    instances: AsyncGenerator[Instance, None], there: Collection[str], walked: list[str]
) -> AsyncGenerator[Instance, None]:
    async for instance in instances:
        walked.append(instance.header.sop_instance_uid)
        if instance.header.sop_instance_uid not in there:
            yield instance
            continue
        async for _ in instance.chunks():  # counted and hashed all the same, as part of the proof
            pass


async def _post(
    wire: Wire, first: Instance, others: AsyncGenerator[Instance, None], sent: set[str]
) -> StowOutcome:
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

    peer = wire.front
    address, headers = peer.address(below="/studies"), {"Content-Type": writer.content_type}
    async with web.post(wire.session, peer, address, write(), _DOING, headers) as (answer, body):
        return await _read(answer, peer, body, sent)


async def _read(
    answer: aiohttp.ClientResponse, peer: web.WebPeer, body: Outgoing, sent: Collection[str]
) -> StowOutcome:
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
    outcome = outcome_of(item, sent)
    if answer.status == 409 and not outcome.failed:
        raise Permanent(
            "the vendor refused the whole study (409) and doesn't say why",
            "Ask the vendor whether it takes studies of this kind.",
        )
    return outcome


def _judge(outcome: StowOutcome, count: int) -> None:
    refused = outcome.refused
    if not refused:
        return
    said = f"the vendor refused {len(refused)} of {count} instances: {describe_all(refused.values())}"
    if may_pass(refused.values()):
        raise Retryable(said, "Only what it lacks is sent again.", uncertain=True)
    raise Permanent(
        said,
        "Choose only instances that it takes (`choose` of the application), or ask the vendor.",
        detail={"refused": {uid: describe(reason) for uid, reason in outcome.failed.items()}},
    )
