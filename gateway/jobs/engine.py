"""The engine: claims due jobs, lets the steps work, and writes down what they say.

PostgreSQL is the queue. Any number of processes run an engine on the same tables; each job is held by one at
a time, under a lease, and whatever process dies, another goes on.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import structlog

from gateway.contract import Busy, Failure, NeedsHuman, Permanent, Retryable
from gateway.jobs.left import LeftToOthers
from gateway.jobs.outcomes import Advance, Observer, Outcome, Rest, Wait
from gateway.jobs.presence import Presence
from gateway.jobs.records import Job
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store import DatabaseError, DatabaseLost, Store, Superseded
from gateway.jobs.turns import Outlook, Turns
from gateway.logs import about_job, places_of
from gateway.loops import Loop, beside
from gateway.settings.sections import Retry

log = structlog.get_logger(__name__)

_OVERRULED = re.compile(r"(?P<job>[0-9a-f-]{36}) (?P<fence>\d+)")
_AFTER_A_LOSS = 1.0
_UNTOLD = "the slide couldn't be told yet"
_SLOWER = 6  # times the longest pause
_SOMEBODY_HAS_IT = 0.1  # at most, until we look again for what was due but locked
_GATHERING = 0.01  # while the room is well filled, places are given out together
_KEPT = 4  # of the room, one part in so many is kept for what is more urgent


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
    grace: float = 10.0  # for steps at work when the process is told to stop
    left: float = 900.0  # to others, what can't be read here; then a person is asked


_NOBODY = Observer()  # hears of what nobody asked for


class Engine:
    def __init__(
        self,
        store: Store,
        url: str,
        steps: Steps,
        capacities: Mapping[str, int],
        pace: Pace | None = None,
        observer: Observer | None = None,
        vendors: int = 1,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        """`vendors`: how many there are that share the room. `on_notice`: hears what replicas tell each other
        besides."""
        self._store = store
        self._steps = steps
        self._capacities = dict(capacities)
        self._pace = pace or Pace()
        self._observer = observer or Observer()
        self._on_notice = on_notice
        self._presence = Presence(url)
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._at_work: dict[UUID, tuple[Job, asyncio.Task[None]]] = {}
        self._being_written: set[UUID] = set()
        self._turns = Turns(self._pace.room, self._pace.room // _KEPT, vendors)
        self._most_urgent_waiting = -1  # of those that found no room
        self._left = LeftToOthers(self._pace.left)
        self._stopping = False
        self._loop = Loop("engine", first=_AFTER_A_LOSS, most=_AFTER_A_LOSS)

    def adopt(self, steps: Steps, capacities: Mapping[str, int], vendors: int) -> list[asyncio.Task[None]]:
        """In force for every step that begins from now on. Returns those at work, which end as they began."""
        self._steps, self._capacities = steps, dict(capacities)
        self._turns = Turns(self._pace.room, self._pace.room // _KEPT, vendors)
        self._wake.set()
        return [task for _, task in self._at_work.values()]

    # -- the loops ------------------------------------------------------------------------------------

    @property
    def worker(self) -> int:
        """Its number among those who work on these jobs; 0 until it is one of them."""
        return self._presence.worker

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Jobs are worked on; at the end steps may finish, then jobs are handed back."""
        async with beside(self.run()):
            try:
                yield
            finally:
                await self.stop()

    async def run(self) -> None:
        """Work until cancelled. Whatever breaks the loops, they begin again; a database is waited for."""
        await self._loop.run(self._hold)

    async def _hold(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._presence.hold(self._begin(group), self._on_wake))
        except Exception:
            # Without the database nothing can be written: others may have these jobs by now.
            await self._cancel([task for _, task in self._at_work.values()])
            raise

    def _begin(self, group: asyncio.TaskGroup) -> Callable[[], Awaitable[None]]:
        async def begin() -> None:
            await self._store.mind_the_clock()
            await self._store.release_orphans()
            group.create_task(self._claim_for_ever())
            group.create_task(self._renew_for_ever())
            group.create_task(self._look_after_others())
            group.create_task(self._presence.watch(self._on_loss))
            self._loop.well()

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
            if payload and self._on_notice is not None:
                self._on_notice(payload)
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
            if len(self._at_work) > self._pace.room // 2:
                await asyncio.sleep(_GATHERING)
            # Replicas that were woken together needn't look together again.
            pause = self._pace.slow_poll * random.uniform(0.8, 1)  # noqa: S311
            if len(self._at_work) < self._pace.room:
                outlook = await self._store.look(self._pace.room, self._capacities, self._left.ids)
                chosen, taken = await self._claim(outlook)
                if taken:
                    continue
                if chosen:
                    pause = _SOMEBODY_HAS_IT * random.uniform(0.2, 1)  # noqa: S311
                for soonest in (outlook.next_in, self._left.next_in):
                    pause = pause if soonest is None else min(pause, soonest)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _claim(self, outlook: Outlook) -> tuple[int, int]:
        """How many were to be taken, and were."""
        async with self._claiming:
            if self._stopping:
                return 0, 0
            at_work = Counter((job.adapter, job.priority) for job, _ in self._at_work.values())
            chosen = self._turns.choose(outlook, at_work)
            left = {due.priority for due in outlook.due} if len(chosen) < len(outlook.due) else ()
            self._most_urgent_waiting = max(left, default=-1)
            worker, lease = self._presence.worker, self._pace.lease
            taken = await self._store.take(worker, lease, chosen, self._capacities)
            for job in taken:
                self._start(job)
            return len(chosen), len(taken)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.lease / 3)
            at_work = dict(self._at_work)
            if not at_work:
                continue
            held = await self._store.renew(self._presence.worker, list(at_work), self._pace.lease)
            for id, (job, task) in at_work.items():
                unchanged = self._at_work.get(id) == (job, task) and id not in self._being_written
                if unchanged and held.get(id) != job.fence and not task.done():
                    log.warning("a step is stopped: the lease of its job is lost", job=str(id))
                    task.cancel()

    async def _look_after_others(self) -> None:
        while True:
            await asyncio.sleep(min(self._pace.slow_poll, self._pace.lease / 3))
            await self._store.mind_the_clock()
            await self._store.release_orphans()

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
        """One step, and those after it for as long as nothing that waits is more urgent."""
        now: Job | None = job
        with about_job(job.id):
            while now is not None:
                with self._heard(now).step(now):
                    now = await self._step(now)
                task = asyncio.current_task()
                if now is not None and task is not None:
                    self._at_work[now.id] = now, task

    def _heard(self, job: Job) -> Observer:
        return _NOBODY if job.canary or job.beside else self._observer

    async def _step(self, job: Job) -> Job | None:
        """The job as it is then, if its worker still has it."""
        try:
            return await self._try(job)
        except Superseded:
            log.info("dropped what a step found: its job has moved on", job=str(job.id))
        except DatabaseError as trouble:
            log.error("a step is left to its lease", job=str(job.id), error=_name_of(trouble))
        return None

    async def _try(self, job: Job) -> Job | None:
        try:
            if job.unreadable:
                await self._leave(job)
                return None
            self._check(job)
            return await self._write(job, await self._steps.take(job))
        except Failure as failure:
            await self._write_failure(job, failure)
        except (Superseded, *DatabaseLost):
            raise
        except Exception as bug:  # noqa: BLE001 - our own: retried within the budget, then held
            places = places_of(bug)
            log.error("a step broke", job=str(job.id), error=_name_of(bug), places=places)
            await self._write_failure(job, _as_failure(bug), places)
        return None

    async def _leave(self, job: Job) -> None:
        if not self._left.leave(job):
            raise NeedsHuman(
                "the job's secrets were stored with a key that isn't among secret_keys any more",
                "Put that key back into secret_keys, then resume the job.",
            )
        log.warning(
            "a job is left to other replicas: its secrets were stored with a key that isn't among ours",
            job=str(job.id),
        )
        await self._move(
            job,
            attempt=max(0, job.attempt - 1),
            at_vendor=job.at_vendor and (job.state != State.SUBMITTING or job.submit_began),
            waits_why="waiting for a replica that has the key of its secrets",
            updated_at=job.updated_at,
        )

    def _goes_on(self, job: Job, outcome: Advance) -> bool:
        """Whether the worker that has a job takes its next step without giving it back."""
        if outcome.after > 0 or outcome.to in FINAL or self._stopping:
            return False
        return not self._for_a_place(job, outcome) and job.priority >= self._most_urgent_waiting

    def _for_a_place(self, job: Job, outcome: Advance) -> dict[str, str]:
        """Why it waits until it has one at its vendor, if the vendor takes a number of them only."""
        places = self._capacities.get(job.adapter)
        if outcome.to != State.SUBMITTING or places is None:
            return {}
        return {"waits_why": f"waiting for its turn: {job.adapter} takes {places} at a time"}

    async def _move(self, job: Job, **values: Any) -> Job:
        self._being_written.add(job.id)
        try:
            return await self._store.move(job, **values)
        finally:
            self._being_written.discard(job.id)

    def _check(self, job: Job) -> None:
        if job.state in WORKING and job.attempt > self._steps.retry_of(job).attempts:
            raise NeedsHuman(
                f"tried {job.attempt - 1} times without an end: {job.error_message or 'worker lost'}",
                "Look at the last error in the job's history, mend it, and resume the job.",
            )

    async def _write(self, job: Job, outcome: Outcome) -> Job | None:
        clean = {"error_kind": None, "error_message": None, "error_advice": None}
        match outcome:
            case Advance():
                goes_on = self._goes_on(job, outcome)
                moved = await self._move(
                    job,
                    to=outcome.to,
                    after=(outcome.after or None) if outcome.to == State.DONE else outcome.after,
                    stay=self._pace.lease if goes_on else None,
                    what=outcome.what,
                    detail=outcome.detail,
                    **(clean | self._for_a_place(job, outcome) | dict(outcome.values)),
                )
                log.info("job moved on", job=str(job.id), was=job.state.value, now=outcome.to.value)
                if outcome.to in FINAL:
                    self._heard(job).ended(job, outcome.to.value)
                else:
                    self._heard(job).entered(job, outcome.to.value)
                return moved if goes_on else None
            case Wait():
                why = outcome.why or outcome.what
                await self._move(
                    job,
                    after=outcome.after,
                    at=outcome.at,
                    what=outcome.what,
                    detail=outcome.detail,
                    waits_why=why,
                    **(clean | dict(outcome.values)),
                )
                if why is not None and why != job.waits_why:
                    log.info("a job waits", job=str(job.id), state=job.state.value, why=why)
            case Rest():
                await self._move(job, after=None, what=outcome.what)
        return None

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
        self._heard(job).retried(job, failure.kind)
        busy = isinstance(failure, Busy)
        await self._move(
            job,
            after=pause,
            attempt=job.attempt - 1 if busy else job.attempt,
            what=f"{'the peer is busy' if busy else f'try {job.attempt} failed'}; again in {pause:.0f} s",
            detail=detail,
            said=failure.said,
            **values,
            **_error(failure),
        )
        log.warning("a step failed; it will be tried again", job=str(job.id), error=failure.message)

    async def _tell_later(self, job: Job, failure: Failure, detail: dict[str, Any]) -> None:
        """What became of a job is told without a budget: slower and slower, until it is told or purged."""
        policy = self._steps.retry_of(job)
        beyond = max(0, job.attempt - policy.attempts)
        pause = policy.pause(job.attempt) * min(1 + beyond, _SLOWER)
        what = "what may still come couldn't be asked for" if job.state == State.DONE else _UNTOLD
        await self._move(
            job,
            after=pause,
            attempt=job.attempt,
            what=None if beyond else what,
            detail=detail,
            said=failure.said,
            updated_at=job.updated_at,  # it ended then
        )
        log.warning(what, job=str(job.id), error=failure.message)

    async def _end(self, job: Job, to: State, failure: Failure, detail: dict[str, Any]) -> None:
        values = _error(failure)
        if to == State.HELD:
            values |= {"held_in": job.state.value, "held_by": failure.peer}
        await self._move(job, to=to, what=to.value, detail=detail, said=failure.said, **values)
        self._heard(job).ended(job, to.value)
        tell = log.warning if job.beside else log.error
        tell(
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
