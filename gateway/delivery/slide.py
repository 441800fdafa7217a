"""What stands on the slide: one result per application and area, always our own earlier one updated.

A job's sign on the slide has an age (its job's creation, then its step). An older sign never covers a newer
one, however late it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

from gateway import __version__
from gateway.contract import Failure, Retryable, SlideResult
from gateway.http import Unanswered
from gateway.jobs.records import Place, SlideRecord
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import NotThere, VersionConflict
from gateway.sectra.results import NewResult, StoredResult
from gateway.sectra.shapes import frame

Size = tuple[int, int]  # width, height
UNKNOWN_SIZE: Size = (1000, 1000)

_TRIES = 12
FIRST_FOR = 15.0  # seconds that the right to store the first result lasts
_LOOKS = 8
_BETWEEN_LOOKS = 0.25
_PATIENCE = 20  # seconds to wait for whoever creates it, or died in the middle of that
_REPLACED = 32
_MARK = "gatewayArea"  # in the context of a result: it is ours, and for this area
_VENDORS_TEXT = "Result"
_NOTHING = {"type": "primitive", "content": []}
_RETIRED = SlideResult("replaced by a newer result", {}, _NOTHING)


@dataclass(frozen=True, slots=True)
class Author:
    """Whose word it is: of two, the younger job's and then the higher rank's stays. A `sign` (queued, at
    work, failed) never covers what a vendor has put there. Nothing is added to what the job's own vendor has
    put there, nor put in the place of the job's own result, unless it is the `last` sign of the job."""

    job_id: UUID
    created_at: datetime
    rank: int
    sign: bool = True
    last: bool = False

    def comes_before(self, other: SlideRecord) -> bool:
        if other.job_created_at is None or other.rank is None:
            return False
        if self.job_id in (other.taken_by, other.result_of) and self.sign and not self.last:
            return True
        return (self.created_at, self.rank) < (other.job_created_at, other.rank)

    def of(self, stored: StoredResult, known: SlideRecord | None, replaced: Sequence[str]) -> SlideRecord:
        taken_by = known.taken_by if known is not None and self.sign else None
        return SlideRecord(
            stored.id,
            stored.version_id,
            self.job_id,
            self.created_at,
            self.rank,
            taken_by,
            list(replaced),
            result_of=None if self.sign else self.job_id,
        )


class Memory(Protocol):
    """Where results and their versions are remembered, so that one call is the rule."""

    async def slide_result(self, place: Place) -> SlideRecord | None: ...

    async def results_elsewhere(self, place: Place) -> set[int]: ...

    async def begin_slide_result(self, place: Place, seconds: float) -> bool: ...

    async def give_up_slide_result(self, place: Place) -> None: ...

    async def remember_slide_result(self, place: Place, record: SlideRecord) -> None: ...

    async def note_version(self, server: str, application: str, result_id: int, version: str) -> None: ...

    async def forget_slide_result(self, place: Place) -> None: ...

    async def forget_result(self, server: str, application: str, result_id: int) -> None: ...


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
            known = await self._memory.slide_result(place)
            if known is not None and known.result_id is not None and _stands(known, author):
                return await client.read_result(place.application, known.result_id)
            return await self._show(client, place, author, result)

    async def put_first(
        self, client: SectraClient, place: Place, author: Author, result: SlideResult
    ) -> StoredResult:
        """Where nothing is known to stand, and the right to be first was taken with the job (`giving_up` is
        around this). What an earlier life of the database has left there is looked for later."""
        async with self.turn(place):
            new = NewResult(**_compose(place, result))
            stored = await client.create_result(place.application, new)
            await self._remember(place, replace(author.of(stored, None, []), alone=False))
            return stored

    async def _show(
        self, client: SectraClient, place: Place, author: Author, result: SlideResult
    ) -> StoredResult | None:
        tries, patience = _TRIES, _PATIENCE
        while tries and patience:
            known = await self._memory.slide_result(place)
            if known is not None and author.comes_before(known):
                return None
            try:
                stored, replaced = await self._store(client, place, known, author, result)
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
                await self._memory.forget_slide_result(place)
                continue
            await self._remember(place, author.of(stored, known, replaced))
            return stored
        raise Retryable(
            "the result on the slide was changed by others again and again",
            "Look whether another system writes results for the same application.",
        )

    async def is_known(self, place: Place, author: Author) -> bool:
        """Whether a sign of this job, or of a younger one, stands there."""
        known = await self._memory.slide_result(place)
        return known is not None and _stands(known, author)

    async def has_stored(self, place: Place, author: Author) -> bool:
        """Whether Sectra took what this job wrote last."""
        known = await self._memory.slide_result(place)
        return known is not None and known.result_id is not None and known.job_id == author.job_id

    async def change(
        self, client: SectraClient, server: str, application: str, changed: StoredResult
    ) -> StoredResult:
        """Store a result as a user changed it. If he changed one that doesn't stand there any more, what
        stands there now is worth more than his change of something older."""
        try:
            stored = await client.update_result(application, changed)
        except VersionConflict:
            return await client.read_result(application, changed.id)
        await self._memory.note_version(server, application, stored.id, stored.version_id)
        return stored

    async def forget(self, server: str, application: str, result_id: int) -> None:
        """The user deleted it."""
        await self._memory.forget_result(server, application, result_id)

    async def _store(
        self,
        client: SectraClient,
        place: Place,
        known: SlideRecord | None,
        author: Author,
        result: SlideResult,
    ) -> tuple[StoredResult, Sequence[str]]:
        """And the versions that it replaces."""
        if known is not None and known.result_id is not None and known.version_id is not None:
            if not known.alone:
                await self._retire_others(client, place, known.result_id)
            if known.taken_by is not None and author.sign:
                current = await client.read_result(place.application, known.result_id)
                changed = _with_sign(current, result).model_copy(update={"version_id": known.version_id})
            else:
                body = _compose(place, result)
                changed = StoredResult(**body, id=known.result_id, version_id=known.version_id)
            stored = await client.update_result(place.application, changed)
            return stored, [*known.replaced, known.version_id][-_REPLACED:]
        first = await self._memory.begin_slide_result(place, FIRST_FOR)
        async with self.giving_up(place) if first else nullcontext():
            # One may stand there all the same: from before a crash, or an earlier life of the database.
            last = next(iter(await _ours_on(client, place)), None)
            if last is None and not first:
                raise _BeingCreated
            if last is None:
                new = NewResult(**_compose(place, result))
                return await client.create_result(place.application, new), []
            body = _compose(place, result)
            stored = await client.update_result(
                place.application, StoredResult(**body, id=last.id, version_id=last.version_id)
            )
            return stored, [last.version_id]

    @asynccontextmanager
    async def giving_up(self, place: Place) -> AsyncIterator[None]:
        """The right to be the first there goes back, unless something may have been stored."""
        try:
            yield
        except Failure as failure:
            if not (isinstance(failure, Unanswered) and failure.uncertain):
                await self._memory.give_up_slide_result(place)
            raise

    async def _retire_others(self, client: SectraClient, place: Place, result_id: int) -> None:
        for other in await _ours_on(client, place):
            if other.id != result_id:
                body = _compose(place, _RETIRED) | {"data": {"context": {}, "result": _NOTHING}}
                retired = StoredResult(**body, id=other.id, version_id=other.version_id)
                await client.update_result(place.application, retired)

    async def _look_again(self, client: SectraClient, place: Place, known: SlideRecord | None) -> None:
        if known is None or known.result_id is None:
            return
        for _ in range(_LOOKS):  # it may be another process of ours, which remembers what it wrote at once
            if await self._memory.slide_result(place) != known:
                return
            await asyncio.sleep(_BETWEEN_LOOKS)
        current = await client.read_result(place.application, known.result_id)
        # Somebody else wrote: who holds a version from before that has missed it. Whose word stands there is
        # left as it is: it may be more than what was known of it here.
        await self._memory.note_version(place.server, place.application, known.result_id, current.version_id)

    async def _remember(self, place: Place, record: SlideRecord) -> None:
        await self._memory.remember_slide_result(place, record)


async def _ours_on(client: SectraClient, place: Place) -> list[StoredResult]:
    """The youngest first. Of this area alone: what others wrote, and other areas, are left as they are."""
    stored = await client.list_results(place.application, place.slide_id)
    ours = [result for result in stored if result.data.context.get(_MARK) == place.area]
    return sorted(ours, key=lambda result: result.id, reverse=True)


def _with_sign(standing: StoredResult, sign: SlideResult) -> StoredResult:
    """A vendor's result stays as it is; what there is to say stands beside its text."""
    own = str(standing.display_properties.get(_VENDORS_TEXT, standing.display_result))
    told = f"{own} ({sign.display_result})" if own else sign.display_result
    properties = {**standing.display_properties, **sign.display_properties, _VENDORS_TEXT: own}
    return standing.model_copy(update={"display_result": told, "display_properties": properties})


def _stands(known: SlideRecord, author: Author) -> bool:
    if known.job_created_at is None:
        return False
    return known.job_id == author.job_id or known.job_created_at > author.created_at


def _compose(place: Place, result: SlideResult) -> dict[str, Any]:
    data = {"context": {_MARK: place.area}, "result": result.data or _NOTHING}
    return {
        "slide_id": place.slide_id,
        "display_result": result.display_result,
        "display_properties": dict(result.display_properties),
        "application_version": __version__,
        "attachments": [],
        "data": data,
    }


def area_marked(result: Mapping[str, Any]) -> str | None:
    """Of a result in Sectra's words: the area that we wrote it for; none if it isn't ours."""
    data = result.get("data")
    context = data.get("context") if isinstance(data, Mapping) else None
    area = context.get(_MARK) if isinstance(context, Mapping) else None
    return area if isinstance(area, str) else None


def temporary(place: Place, result: SlideResult) -> Mapping[str, Any]:
    """A result without an id: what Sectra shows until the stored one is there."""
    return NewResult(**_compose(place, result)).to_wire()


def sign(text: str, size: Size, properties: Mapping[str, str | int | float]) -> SlideResult:
    """A frame around the whole slide with a label: queued, at work, failed."""
    return SlideResult(text, dict(properties), {"type": "primitive", "content": [_framed(size, text)]})


@lru_cache(256)
def _framed(size: Size, text: str) -> dict[str, Any]:
    """As it is for nearly all slides of a scanner."""
    return frame(*size, text).to_wire()
