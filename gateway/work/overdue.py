"""Results that come after all: a vendor is still asked, ever more seldom, about a job that is held since
nothing came in time, and the job goes on by itself once there is something to collect. Where some of it came
in time, and the job is done, what comes later is delivered by a job of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from gateway.archives.spool import Spool
from gateway.circuits import Circuits
from gateway.contract import Adapter, Failure, Finished, Pending, Retryable
from gateway.jobs.outcomes import Advance, Outcome, Rest, Wait
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.work.conversation import Conversation

log = structlog.get_logger(__name__)

LOOKED_FOR = "the vendor is still asked for the result"  # says which of them have been told of
_REST = "the vendor is still asked for what it hadn't finished in time"
_FOR = timedelta(days=30)
_SOONEST, _LATEST = 5.0, 3600.0
_SHARE = 0.25  # of the time that it is overdue already


def is_overdue(job: Job) -> bool:
    due = job.result_by if job.state == State.HELD and job.held_in == State.ANALYSING else None
    return due is not None and timedelta() <= datetime.now(UTC) - due < _FOR


def ask_on(job: Job, outcome: Outcome, finished: Finished) -> Outcome:
    """Of what is done but for something that may come yet, if anybody waits for that."""
    if job.canary or job.beside or not finished.awaited:
        return outcome
    if isinstance(outcome, Advance) and outcome.to == State.DONE:
        return replace(outcome, values={**outcome.values, "waits_why": _REST}, after=_SOONEST)
    return outcome


class Overdue:
    def __init__(self, conversation: Conversation, circuits: Circuits, spool: Spool, store: Store) -> None:
        self._store = store
        self._conversation = conversation
        self._circuits = circuits
        self._spool = spool

    async def has_come(self, job: Job, adapter: Adapter) -> bool:
        """Whether there is something to collect, or the vendor says that there never will be."""
        if self._circuits.bars(f"adapters.{job.adapter}"):
            return False
        await self._spool.empty(job.id)
        try:
            if not isinstance(await self._conversation.poll(job, adapter), Pending):
                return True
            await self._spool.empty(job.id)
            return await self._conversation.gather(job, adapter) is not None
        except Retryable as failure:
            log.info("an overdue result couldn't be asked for", job=str(job.id), error=failure.message)
            return False
        except Failure:
            return True  # it is told when the job goes on
        finally:
            await asyncio.to_thread(self._spool.remove, job.id)

    async def look(self, job: Job, make: Callable[[], Adapter]) -> Outcome:
        """For the rest of what a job is done with. Its adapter may be configured no longer."""
        since = datetime.now(UTC) - job.updated_at
        if job.result is None or since >= _FOR:
            return Rest()
        found = await self._gather(job, make)
        if found is not None and len(found.failed) < len(job.result["failed"]):
            await self._store.begin_sequel(job, "the vendor has finished more of it")
            return Rest()
        if found is not None and not found.awaited:
            return Rest("nothing more comes of it")
        after = min(max(_SOONEST, _SHARE * since.total_seconds()), _LATEST)
        return Wait(after=after, why=_REST, values={"updated_at": job.updated_at})

    async def _gather(self, job: Job, make: Callable[[], Adapter]) -> Finished | None:
        if self._circuits.bars(f"adapters.{job.adapter}"):
            return None
        await self._spool.empty(job.id)
        try:
            return await self._conversation.gather(job, make())
        except Failure as failure:
            log.info("the rest of a result couldn't be asked for", job=str(job.id), error=failure.message)
            return None
        finally:
            await asyncio.to_thread(self._spool.remove, job.id)

    def go_on(self) -> Advance:
        void = dict.fromkeys(("held_in", "held_by", "result_by"))
        what = "goes on by itself: the vendor has an answer after all"
        return Advance(State.ANALYSING, what, values={**void, "at_vendor": True})

    def wait(self, job: Job, what: str | None) -> Wait:
        """As it is: held, since then, for that."""
        assert job.result_by is not None
        overdue = (datetime.now(UTC) - job.result_by).total_seconds()
        same = ("updated_at", "error_kind", "error_message", "error_advice")
        return Wait(
            after=min(max(_SOONEST, _SHARE * overdue), _LATEST),
            what=what,
            why=LOOKED_FOR,
            values={name: getattr(job, name) for name in same},
        )
