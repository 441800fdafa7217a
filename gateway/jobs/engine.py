"""The engine: claims due jobs, lets the steps work, and writes down what they say.

PostgreSQL is the queue. Any number of processes run an engine on the same tables; each job is held by one at
a time, under a lease, and whatever process dies, another goes on.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.jobs import observations
from gateway.jobs.outcomes import Advance, Outcome, Rest, Wait
from gateway.jobs.presence import Presence
from gateway.jobs.records import Job
from gateway.jobs.states import FINAL, State
from gateway.jobs.store import Store, Superseded
from gateway.settings import Retry

log = structlog.get_logger(__name__)


class Steps(Protocol):
    async def take(self, job: Job) -> Outcome: ...

    def retry_of(self, job: Job) -> Retry: ...

    def contact_of(self, job: Job) -> str: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How the engine keeps time; tests make it brisk."""

    room: int = 32  # jobs at work in this process
    lease: float = 30.0
    slow_poll: float = 5.0
    grace: float = 20.0  # for steps at work when the process is told to stop


class Engine:
    def __init__(
        self, store: Store, url: str, steps: Steps, limits: Mapping[str, int], pace: Pace | None = None
    ) -> None:
        self._store = store
        self._steps = steps
        self._limits = dict(limits)
        self._pace = pace or Pace()
        self._presence = Presence(url)
        self._wake = asyncio.Event()
        self._at_work: dict[UUID, tuple[Job, asyncio.Task[None]]] = {}
        self._stopping = False

    # -- the loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled; a lost database is waited for."""
        while not self._stopping:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._presence.hold(self._begin(group), self._on_wake))
            except* (psycopg.Error, SQLAlchemyError, OSError) as trouble:
                log.error("the database is lost; trying again", error=_name_of(trouble.exceptions[0]))
                self._abandon()
                await asyncio.sleep(1.0)

    def _begin(self, group: asyncio.TaskGroup) -> Callable[[], Awaitable[None]]:
        async def begin() -> None:
            await self._store.release_orphans()
            group.create_task(self._claim_for_ever())
            group.create_task(self._renew_for_ever())
            group.create_task(self._presence.watch(self._on_loss))

        return begin

    async def stop(self) -> None:
        """Take no more; let the steps at work end within the grace, then hand their jobs back."""
        self._stopping = True
        self._wake.set()
        tasks = [task for _, task in self._at_work.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._pace.grace)
            for job, task in list(self._at_work.values()):
                if task in late:
                    task.cancel()
                    await asyncio.wait([task])
                    await self._hand_back(job)

    async def _hand_back(self, job: Job) -> None:
        try:
            await self._store.move(job, attempt=max(0, job.attempt - 1), what="handed back at shutdown")
        except Superseded:
            pass
        except (SQLAlchemyError, OSError) as trouble:
            log.warning("a job is left to its lease", job=str(job.id), error=_name_of(trouble))

    def _on_wake(self, payload: str) -> None:
        self._wake.set()
        if payload:  # a person has overruled this job: what a worker does with it is void
            _, task = self._at_work.get(UUID(payload), (None, None))
            if task is not None:
                task.cancel()

    async def _on_loss(self) -> None:
        await self._store.release_orphans()

    async def _claim_for_ever(self) -> None:
        while not self._stopping:
            self._wake.clear()
            room = self._pace.room - len(self._at_work)
            claimed: list[Job] = []
            if room > 0:
                claimed = await self._store.claim(self._presence.worker, room, self._pace.lease, self._limits)
            for job in claimed:
                task = asyncio.create_task(self._work(job), name=f"job {job.id}")
                self._at_work[job.id] = (job, task)
                task.add_done_callback(lambda task, job=job: self._on_end(job, task))  # type: ignore[misc]
            if not claimed:
                await self._doze()

    async def _doze(self) -> None:
        due = await self._store.next_due()
        pause = self._pace.slow_poll if due is None else min(max(due, 0.02), self._pace.slow_poll)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            if due is None or due > self._pace.slow_poll:
                await self._store.release_orphans()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.lease / 3)
            if not self._at_work:
                continue
            held = await self._store.renew(self._presence.worker, list(self._at_work), self._pace.lease)
            for job, task in list(self._at_work.values()):
                if held.get(job.id) != job.fence:
                    log.warning("lost the lease of a job", job=str(job.id))
                    task.cancel()

    def _on_end(self, job: Job, task: asyncio.Task[None]) -> None:
        if self._at_work.get(job.id, (None, None))[1] is task:
            del self._at_work[job.id]
        self._wake.set()

    def _abandon(self) -> None:
        """Without the database nothing can be written: others may have these jobs by now."""
        for _, task in list(self._at_work.values()):
            task.cancel()

    # -- one job --------------------------------------------------------------------------------------

    async def _work(self, job: Job) -> None:
        with observations.step(job.application, job.state.value):
            try:
                if job.attempt > self._steps.retry_of(job).attempts:
                    raise NeedsHuman(
                        f"tried {job.attempt - 1} times without an end: {job.error_message or 'worker lost'}",
                        "Look at the last error in the job's history, mend it, and resume the job.",
                    )
                outcome = await self._steps.take(job)
                await self._write(job, outcome)
            except Superseded:
                log.info("dropped the result of a step: the job has moved on", job=str(job.id))
            except Failure as failure:
                await self._write_failure(job, failure)
            except (SQLAlchemyError, OSError) as trouble:
                log.error("a step is left to its lease", job=str(job.id), error=_name_of(trouble))
            except Exception as bug:  # our own: retried within the budget, then held
                log.exception("a step broke", job=str(job.id), state=job.state.value)
                await self._write_failure(job, _as_failure(bug), places=_places_of(bug))

    async def _write(self, job: Job, outcome: Outcome) -> None:
        clean = {"error_kind": None, "error_message": None, "error_advice": None}
        match outcome:
            case Advance():
                if outcome.to not in FINAL:
                    observations.entered(job.application, outcome.to.value)
                await self._store.move(
                    job,
                    to=outcome.to,
                    after=None if outcome.to == State.DONE else outcome.after,
                    what=outcome.what,
                    detail=outcome.detail,
                    **(clean | dict(outcome.values)),
                )
                log.info("job moved on", job=str(job.id), was=job.state.value, now=outcome.to.value)
                if outcome.to in FINAL:
                    observations.ended(job.application, outcome.to.value, job.created_at)
            case Wait():
                await self._store.move(
                    job,
                    after=outcome.after,
                    at=outcome.at,
                    what=outcome.what,
                    detail=outcome.detail,
                    **(clean | dict(outcome.values)),
                )
            case Rest():
                await self._store.move(job, after=None, what=outcome.what)

    async def _write_failure(self, job: Job, failure: Failure, places: list[str] | None = None) -> None:
        detail: dict[str, Any] = {"message": failure.message, "advice": failure.advice, **failure.detail}
        if places:
            detail["places"] = places
        try:
            if isinstance(failure, Retryable) and job.attempt < self._steps.retry_of(job).attempts:
                await self._retry_later(job, failure, detail)
            elif job.state in (*FINAL, State.HELD):
                await self._store.move(job, after=None, what="the slide couldn't be told", detail=detail)
            elif isinstance(failure, Permanent):
                await self._end(job, State.FAILED, failure, detail)
            else:
                await self._end(job, State.HELD, failure, detail)
        except Superseded:
            log.info("dropped a failure: the job has moved on", job=str(job.id))

    async def _retry_later(self, job: Job, failure: Retryable, detail: dict[str, Any]) -> None:
        policy = self._steps.retry_of(job)
        pause = min(policy.most, policy.first * 2 ** (job.attempt - 1))
        pause = max(pause * random.uniform(0.5, 1.0), failure.after or 0.0)  # noqa: S311
        values: dict[str, Any] = {}
        if job.state == State.SUBMITTING:
            values["at_vendor"] = failure.uncertain
            if not failure.uncertain:
                values["submit_began"] = False
        if job.state not in (*FINAL, State.HELD):
            values |= _error(failure)
        observations.retried(job.application, job.state.value)
        await self._store.move(
            job,
            after=pause,
            attempt=None,
            what=f"try {job.attempt} failed; again in {pause:.0f} s",
            detail=detail,
            **values,
        )
        log.warning("a step failed; it will be tried again", job=str(job.id), error=failure.message)

    async def _end(self, job: Job, to: State, failure: Failure, detail: dict[str, Any]) -> None:
        held_in = job.state.value if to == State.HELD else None
        await self._store.move(job, to=to, what=to.value, detail=detail, held_in=held_in, **_error(failure))
        observations.ended(job.application, to.value, job.created_at)
        log.error(
            f"job {to.value}",
            job=str(job.id),
            application=job.application,
            contact=self._steps.contact_of(job),
            error=failure.message,
            advice=failure.advice,
        )


def _error(failure: Failure) -> dict[str, Any]:
    return {
        "error_kind": failure.kind,
        "error_message": failure.message,
        "error_advice": failure.advice,
    }


def _as_failure(bug: Exception) -> Retryable:
    return Retryable(
        f"an error in the gateway itself ({type(bug).__name__})",
        "Send the job's history to the gateway's developers.",
    )


def _places_of(bug: Exception) -> list[str]:
    """Where it broke, without the values: those may be a patient's."""
    frames = traceback.extract_tb(bug.__traceback__)
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-12:]]


def _name_of(trouble: BaseException) -> str:
    return type(trouble).__name__
