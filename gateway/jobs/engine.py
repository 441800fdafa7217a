"""The engine: claims due jobs, lets the steps work, and writes down what they say.

PostgreSQL is the queue. Any number of processes run an engine on the same tables; each job is held by one at
a time, under a lease, and whatever process dies, another goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import psycopg
import structlog

from gateway.contract import Busy, Failure, NeedsHuman, Permanent, Retryable
from gateway.jobs.outcomes import Advance, Observer, Outcome, Rest, Wait
from gateway.jobs.presence import Presence
from gateway.jobs.records import Job
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store import DatabaseError, DatabaseLost, Store, Superseded
from gateway.logs import places_of
from gateway.settings.sections import Retry

log = structlog.get_logger(__name__)

_OVERRULED = re.compile(r"(?P<job>[0-9a-f-]{36}) (?P<fence>\d+)")
_AFTER_A_LOSS = 1.0
_SLOWER = 6  # times the longest pause
_SOMEBODY_HAS_IT = 0.1  # a job is due, but was locked a moment ago


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
        self,
        store: Store,
        url: str,
        steps: Steps,
        capacities: Mapping[str, int],
        pace: Pace | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._steps = steps
        self._capacities = dict(capacities)
        self._pace = pace or Pace()
        self._observer = observer or Observer()
        self._presence = Presence(url)
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._at_work: dict[UUID, tuple[Job, asyncio.Task[None]]] = {}
        self._stopping = False

    # -- the loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. Whatever breaks the loops, they begin again; a database is waited for."""
        while not self._stopping:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._presence.hold(self._begin(group), self._on_wake))
            except* (psycopg.Error, DatabaseError) as trouble:
                log.error("the database is lost; trying again", error=_name_of(trouble.exceptions[0]))
            except* Exception as trouble:  # noqa: BLE001 - a bug of ours must not end all work in silence
                bug = trouble.exceptions[0]
                log.error("the engine broke; it begins again", error=_name_of(bug), places=places_of(bug))
            # Without the database nothing can be written: others may have these jobs by now.
            await self._cancel([task for _, task in self._at_work.values()])
            if not self._stopping:
                await asyncio.sleep(_AFTER_A_LOSS)

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
        async with self._claiming:  # what was just being claimed has begun
            at_work = list(self._at_work.values())
        if not at_work:
            return
        _, late = await asyncio.wait([task for _, task in at_work], timeout=self._pace.grace)
        await self._cancel(late)
        await asyncio.gather(*(self._hand_back(job) for job, task in at_work if task in late))

    async def _hand_back(self, job: Job) -> None:
        try:
            await self._store.move(job, attempt=max(0, job.attempt - 1), what="handed back at shutdown")
        except Superseded:
            log.info("nothing to hand back: the job has moved on", job=str(job.id))
        except DatabaseError as trouble:
            log.warning("a job is left to its lease", job=str(job.id), error=_name_of(trouble))

    async def _cancel(self, tasks: Collection[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._pace.grace)

    def _on_wake(self, payload: str) -> None:
        """`payload`: a job that a person has overruled, and its fence number since."""
        self._wake.set()
        named = _OVERRULED.fullmatch(payload)
        if named is None:
            return
        job, task = self._at_work.get(UUID(named["job"]), (None, None))
        if job is not None and task is not None and job.fence < int(named["fence"]):
            log.info("a step is stopped: its job was overruled", job=str(job.id), state=job.state.value)
            task.cancel()

    async def _on_loss(self) -> None:
        await self._store.release_orphans()

    async def _claim_for_ever(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if not await self._claim():
                await self._doze()

    async def _claim(self) -> bool:
        async with self._claiming:
            room = self._pace.room - len(self._at_work)
            if room <= 0 or self._stopping:
                return False
            claimed = await self._store.claim(self._presence.worker, room, self._pace.lease, self._capacities)
            for job in claimed:
                self._start(job)
            return bool(claimed)

    async def _doze(self) -> None:
        """Until something is due or somebody wakes us."""
        pause = self._pace.slow_poll
        if len(self._at_work) < self._pace.room:
            due = await self._store.next_due(self._capacities)
            if due is not None:
                pause = min(pause, due if due > 0 else _SOMEBODY_HAS_IT)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            if pause == self._pace.slow_poll:
                await self._store.release_orphans()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.lease / 3)
            at_work = dict(self._at_work)
            if not at_work:
                continue
            held = await self._store.renew(self._presence.worker, list(at_work), self._pace.lease)
            for job, task in at_work.values():
                if held.get(job.id) != job.fence and not task.done():
                    log.warning("a step is stopped: the lease of its job is lost", job=str(job.id))
                    task.cancel()

    def _start(self, job: Job) -> None:
        _, former = self._at_work.get(job.id, (None, None))
        if former is not None:
            log.info("a step is stopped: its job was taken up anew", job=str(job.id))
            former.cancel()
        task = asyncio.create_task(self._work(job), name=f"job {job.id}")
        self._at_work[job.id] = (job, task)
        task.add_done_callback(lambda ended: self._on_end(job, ended))

    def _on_end(self, job: Job, task: asyncio.Task[None]) -> None:
        if self._at_work.get(job.id, (None, None))[1] is task:
            del self._at_work[job.id]
        self._wake.set()

    # -- one job --------------------------------------------------------------------------------------

    async def _work(self, job: Job) -> None:
        with self._observer.step(job.application, job.state.value):
            try:
                await self._step(job)
            except Superseded:
                log.info("dropped what a step found: its job has moved on", job=str(job.id))
            except DatabaseError as trouble:
                log.error("a step is left to its lease", job=str(job.id), error=_name_of(trouble))

    async def _step(self, job: Job) -> None:
        try:
            self._check(job)
            await self._write(job, await self._steps.take(job))
        except Failure as failure:
            await self._write_failure(job, failure)
        except (Superseded, *DatabaseLost):
            raise
        except Exception as bug:  # noqa: BLE001 - our own: retried within the budget, then held
            places = places_of(bug)
            log.error("a step broke", job=str(job.id), error=_name_of(bug), places=places)
            await self._write_failure(job, _as_failure(bug), places)

    def _check(self, job: Job) -> None:
        if job.unreadable:
            raise NeedsHuman(
                "the job's secrets were stored with a key that isn't among secret_keys any more",
                "Put that key back into secret_keys, then resume the job.",
            )
        if job.state in WORKING and job.attempt > self._steps.retry_of(job).attempts:
            raise NeedsHuman(
                f"tried {job.attempt - 1} times without an end: {job.error_message or 'worker lost'}",
                "Look at the last error in the job's history, mend it, and resume the job.",
            )

    async def _write(self, job: Job, outcome: Outcome) -> None:
        clean = {"error_kind": None, "error_message": None, "error_advice": None}
        match outcome:
            case Advance():
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
                    self._observer.ended(job.application, outcome.to.value, job.created_at)
                else:
                    self._observer.entered(job.application, outcome.to.value)
            case Wait():
                await self._store.move(
                    job,
                    after=outcome.after,
                    at=outcome.at,
                    what=outcome.what,
                    detail=outcome.detail,
                    waits_why=outcome.why or outcome.what,
                    **(clean | dict(outcome.values)),
                )
            case Rest():
                await self._store.move(job, after=None, what=outcome.what)

    async def _write_failure(self, job: Job, failure: Failure, places: list[str] | None = None) -> None:
        detail: dict[str, Any] = {"message": failure.message, "advice": failure.advice, **failure.detail}
        if places:
            detail["places"] = places
        spent = job.attempt >= self._steps.retry_of(job).attempts
        if job.state not in WORKING:
            await self._tell_later(job, failure, detail)
        elif isinstance(failure, Busy) or (isinstance(failure, Retryable) and not spent):
            await self._retry_later(job, failure, detail)
        elif isinstance(failure, Permanent):
            await self._end(job, State.FAILED, failure, detail)
        else:
            await self._end(job, State.HELD, failure, detail)

    async def _retry_later(self, job: Job, failure: Retryable, detail: dict[str, Any]) -> None:
        pause = self._steps.retry_of(job).pause(job.attempt, failure.after)
        values: dict[str, Any] = {"waits_why": failure.message}
        if job.state == State.SUBMITTING and not failure.uncertain and not job.submit_began:
            # Surely nothing has arrived, now or at an earlier try: somebody else may have the place.
            values |= {"at_vendor": False, "submit_began": False}
        self._observer.retried(job.application, job.state.value)
        busy = isinstance(failure, Busy)
        await self._store.move(
            job,
            after=pause,
            attempt=job.attempt - 1 if busy else job.attempt,
            what=f"{'the peer is busy' if busy else f'try {job.attempt} failed'}; again in {pause:.0f} s",
            detail=detail,
            **values,
            **_error(failure),
        )
        log.warning("a step failed; it will be tried again", job=str(job.id), error=failure.message)

    async def _tell_later(self, job: Job, failure: Failure, detail: dict[str, Any]) -> None:
        """What became of a job is told without a budget: slower and slower, until it is told or purged."""
        policy = self._steps.retry_of(job)
        beyond = max(0, job.attempt - policy.attempts)
        pause = policy.pause(job.attempt) * min(1 + beyond, _SLOWER)
        await self._store.move(
            job,
            after=pause,
            attempt=job.attempt,
            what=None if beyond else "the slide couldn't be told yet",
            detail=detail,
            updated_at=job.updated_at,  # it ended then
        )
        log.warning("the slide couldn't be told yet", job=str(job.id), error=failure.message)

    async def _end(self, job: Job, to: State, failure: Failure, detail: dict[str, Any]) -> None:
        values = _error(failure)
        if to == State.HELD:
            values |= {"held_in": job.state.value, "held_by": failure.peer}
        await self._store.move(job, to=to, what=to.value, detail=detail, **values)
        self._observer.ended(job.application, to.value, job.created_at)
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
    if isinstance(bug, OSError):
        return Retryable(
            f"the gateway's own disk or network failed ({bug.strerror or _name_of(bug)})",
            "Look at the disk below data_dir, and at the network of this machine.",
            uncertain=True,
        )
    return Retryable(
        f"an error in the gateway itself ({_name_of(bug)})",
        "Send the job's history to the gateway's developers.",
        uncertain=True,
    )


def _name_of(trouble: BaseException) -> str:
    return type(trouble).__name__
