"""What stands on the slide: one result per application, always our own earlier one updated.

A job's sign on the slide has an age (its job's creation, then its step). An older sign never covers a newer
one, however late it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

import aiohttp

from gateway import __version__
from gateway.contract import Failure, Retryable, SlideResult
from gateway.jobs.records import SlideRecord
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import NotThere, VersionConflict
from gateway.sectra.results import NewResult, StoredResult
from gateway.sectra.shapes import frame

Size = tuple[int, int]  # width, height
UNKNOWN_SIZE: Size = (1000, 1000)

_TRIES = 12
_CREATING = 15.0
_PATIENCE = 20  # seconds to wait for whoever creates it, or died in the middle of that
_REPLACED = 32


@dataclass(frozen=True, slots=True)
class Place:
    server: str
    application: str
    slide_id: str


@dataclass(frozen=True, slots=True)
class Author:
    """Whose sign it is: of two, the younger job's and then the higher rank's stays. What the job's vendor has
    put there stays as well, unless the sign is the `last` one of the job."""

    job_id: UUID
    created_at: datetime
    rank: int
    last: bool = False

    def comes_before(self, other: SlideRecord) -> bool:
        if other.job_created_at is None or other.rank is None:
            return False
        if other.taken and other.job_id == self.job_id and not self.last:
            return True
        return (self.created_at, self.rank) < (other.job_created_at, other.rank)

    def of(self, stored: StoredResult, known: SlideRecord | None, replaced: Sequence[str]) -> SlideRecord:
        taken = known is not None and known.taken and known.job_id == self.job_id
        return SlideRecord(
            stored.id, stored.version_id, self.job_id, self.created_at, self.rank, taken, list(replaced)
        )


class Memory(Protocol):
    """Where results and their versions are remembered, so that one call is the rule."""

    async def slide_result(self, server: str, application: str, slide_id: str) -> SlideRecord | None: ...

    async def begin_slide_result(
        self, server: str, application: str, slide_id: str, seconds: float
    ) -> bool: ...

    async def give_up_slide_result(self, server: str, application: str, slide_id: str) -> None: ...

    async def remember_slide_result(
        self, server: str, application: str, slide_id: str, record: SlideRecord
    ) -> None: ...

    async def forget_slide_result(self, server: str, application: str, slide_id: str) -> None: ...


class _BeingCreated(Exception):
    """Another process has the right to store the first result on this slide."""


class SlideWriter:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._locks: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()

    def turn(self, place: Place) -> asyncio.Lock:
        """Who writes there takes turns, as far as this process goes."""
        return self._locks.setdefault(place, asyncio.Lock())

    async def show(
        self, client: SectraClient, place: Place, author: Author, result: SlideResult
    ) -> StoredResult | None:
        """Put a result on the slide; None when a younger one stands there already."""
        async with self.turn(place):
            return await self._show(client, place, author, result)

    async def ensure(
        self, client: SectraClient, place: Place, author: Author, result: SlideResult
    ) -> StoredResult | None:
        """What stands there if it is this job's or a younger one's; else put `result` there."""
        async with self.turn(place):
            known = await self._memory.slide_result(place.server, place.application, place.slide_id)
            if known is not None and known.result_id is not None and _stands(known, author):
                return await client.read_result(place.application, known.result_id)
            return await self._show(client, place, author, result)

    async def _show(
        self, client: SectraClient, place: Place, author: Author, result: SlideResult
    ) -> StoredResult | None:
        tries, patience = _TRIES, _PATIENCE
        while tries and patience:
            known = await self._memory.slide_result(place.server, place.application, place.slide_id)
            if known is not None and author.comes_before(known):
                return None
            try:
                stored, replaced = await self._store(client, place, known, result)
            except VersionConflict:
                tries -= 1
                await self._look_again(client, place, known)
                continue
            except _BeingCreated:
                patience -= 1
                await asyncio.sleep(1.0)
                continue
            except NotThere:
                if known is None or known.result_id is None:
                    raise
                # the user deleted it meanwhile: a new one takes its place
                tries -= 1
                await self._memory.forget_slide_result(place.server, place.application, place.slide_id)
                continue
            await self._remember(place, author.of(stored, known, replaced))
            return stored
        raise Retryable(
            "the result on the slide was changed by others again and again",
            "Look whether another system writes results for the same application.",
        )

    async def is_known(self, place: Place, author: Author) -> bool:
        """Whether a sign of this job, or of a younger one, stands there."""
        known = await self._memory.slide_result(place.server, place.application, place.slide_id)
        return known is not None and _stands(known, author)

    async def change(self, client: SectraClient, place: Place, changed: StoredResult) -> StoredResult:
        """Store a result as a user changed it."""
        async with self.turn(place):
            known = await self._memory.slide_result(place.server, place.application, place.slide_id)
            try:
                stored = await client.update_result(place.application, changed)
            except VersionConflict:
                current = await client.read_result(place.application, changed.id)
                changed = changed.model_copy(update={"version_id": current.version_id})
                stored = await client.update_result(place.application, changed)
            if known is not None and known.result_id == stored.id:
                await self._remember(place, replace(known, version_id=stored.version_id, replaced=[]))
            return stored

    async def forget(self, place: Place, result_id: int) -> None:
        """The user deleted it."""
        known = await self._memory.slide_result(place.server, place.application, place.slide_id)
        if known is not None and known.result_id == result_id:
            await self._memory.forget_slide_result(place.server, place.application, place.slide_id)

    async def _store(
        self, client: SectraClient, place: Place, known: SlideRecord | None, result: SlideResult
    ) -> tuple[StoredResult, Sequence[str]]:
        """And the versions that it replaces."""
        if known is not None and known.result_id is not None and known.version_id is not None:
            body = _compose(place, result)
            stored = await client.update_result(
                place.application,
                StoredResult(**body, id=known.result_id, version_id=known.version_id),
            )
            return stored, [*known.replaced, known.version_id][-_REPLACED:]
        # One may stand there all the same: from before a crash, or an earlier life of the database.
        last = await _last_of(client, place)
        if last is None:
            if not await self._memory.begin_slide_result(
                place.server, place.application, place.slide_id, _CREATING
            ):
                raise _BeingCreated
            try:
                last = await _last_of(client, place)  # it may be done since we looked
                if last is None:
                    new = NewResult(**_compose(place, result))
                    return await client.create_result(place.application, new), []
            except Failure as failure:
                if not _may_still_arrive(failure):
                    await self._memory.give_up_slide_result(place.server, place.application, place.slide_id)
                raise
        body = _compose(place, result)
        stored = await client.update_result(
            place.application, StoredResult(**body, id=last.id, version_id=last.version_id)
        )
        return stored, [last.version_id]

    async def _look_again(self, client: SectraClient, place: Place, known: SlideRecord | None) -> None:
        if known is None or known.result_id is None:
            return
        current = await client.read_result(place.application, known.result_id)
        # Somebody else wrote: who holds a version from before that has missed it.
        await self._remember(place, replace(known, version_id=current.version_id, replaced=[]))

    async def _remember(self, place: Place, record: SlideRecord) -> None:
        await self._memory.remember_slide_result(place.server, place.application, place.slide_id, record)


def _may_still_arrive(failure: Failure) -> bool:
    """An answer, however bad, ends a call; a broken connection or a time limit doesn't."""
    unanswered = isinstance(failure.__cause__, aiohttp.ClientError | TimeoutError)
    return unanswered and isinstance(failure, Retryable) and failure.uncertain


async def _last_of(client: SectraClient, place: Place) -> StoredResult | None:
    return max(
        await client.list_results(place.application, place.slide_id), key=lambda one: one.id, default=None
    )


def _stands(known: SlideRecord, author: Author) -> bool:
    if known.job_created_at is None:
        return False
    return known.job_id == author.job_id or known.job_created_at > author.created_at


def _compose(place: Place, result: SlideResult) -> dict[str, Any]:
    data = {"context": {}, "result": result.data or {"type": "primitive", "content": []}}
    return {
        "slide_id": place.slide_id,
        "display_result": result.display_result,
        "display_properties": dict(result.display_properties),
        "application_version": __version__,
        "attachments": [],
        "data": data,
    }


def temporary(place: Place, result: SlideResult) -> Mapping[str, Any]:
    """A result without an id: what Sectra shows until the stored one is there."""
    return NewResult(**_compose(place, result)).to_wire()


def sign(text: str, size: Size, properties: Mapping[str, str | int | float]) -> SlideResult:
    """A frame around the whole slide with a label: queued, at work, failed."""
    framed = frame(*size, text).to_wire()
    return SlideResult(text, dict(properties), {"type": "primitive", "content": [framed]})
