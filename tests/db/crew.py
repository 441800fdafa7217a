"""Workers for the tests: engines whose steps do what a test says, here and in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import psycopg

from gateway.jobs.cipher import Cipher
from gateway.jobs.engine import Engine, Pace
from gateway.jobs.outcomes import Advance, Outcome, Rest
from gateway.jobs.records import InstanceRecord, Job, NewJob
from gateway.jobs.states import WORKING, State
from gateway.jobs.store import Store, Superseded
from gateway.settings.sections import Retry

# The slow poll and the lease are slower than any test's patience: whoever relies on it is found out.
BRISK = Pace(room=8, lease=180, slow_poll=150, grace=2)
PATIENCE = 75.0
WAY = dict(zip(WORKING, (*WORKING[1:], State.DONE), strict=True))

Act = Callable[[Job], Awaitable[Outcome]]


class Script:
    """Goes the whole way at once, except where the test says otherwise."""

    def __init__(self, acts: Mapping[State, Act] | None = None, retry: Retry | None = None) -> None:
        self._acts = dict(acts or {})
        self._retry = retry or Retry(attempts=3, first="20ms", most="50ms")
        self.taken: list[Job] = []

    async def take(self, job: Job) -> Outcome:
        self.taken.append(job)
        if job.state in self._acts:
            return await self._acts[job.state](job)
        return Advance(WAY[job.state], "went on") if job.state in WAY else Rest()

    def retry_of(self, job: Job) -> Retry:
        return self._retry

    def contact_of(self, job: Job) -> str:
        return "nobody@hospital"


def ask_for(**given: Any) -> NewJob:
    return NewJob(**{"department": "d", "application": "a", "adapter": "vendor", "origin": "rest", **given})


async def until(met: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await met():
            await asyncio.sleep(0.01)


async def reaches(store: Store, job: Job, *states: State) -> Job:
    """The job, once it is in one of these states and nobody has it."""
    found = job

    async def there() -> bool:
        nonlocal found
        found = await store.get(job.id) or job
        return found.state in states and found.lease_holder is None

    await until(there)
    return found


async def bring(store: Store, job: Job, state: State) -> Job:
    """Walk a fresh job to a working state, claimed by hand."""
    worker = 7
    while True:
        [claimed] = await store.claim(worker, 1, 60, {})
        assert claimed.id == job.id
        if claimed.state == state:
            return claimed
        await store.move(claimed, to=WAY[claimed.state])


# -- in a process of its own ------------------------------------------------------------------------------


class Stranger(Script):
    """Says on the standard output what it takes up, and then does what its manner is."""

    def __init__(self, store: Store, url: str, manner: str) -> None:
        super().__init__()
        self._store = store
        self._url = url
        self._manner = manner

    async def take(self, job: Job) -> Outcome:
        print("took", job.id, job.state, job.attempt, flush=True)
        if job.state not in WAY:
            return Rest()
        match self._manner:
            case "hang":
                await asyncio.sleep(3600)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                sys.stdin.readline()  # blocks the whole process, its renewals too
                # The engine stops the step as soon as it can breathe; the writes go on.
                await asyncio.shield(asyncio.create_task(self._try_all(job)))
            case "count":
                self._count(job)
        return Advance(WAY[job.state], "went on")

    def _count(self, job: Job) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO worked (job, state, pid) VALUES (%s, %s, %s)", (job.id, job.state, os.getpid())
            )

    async def _try_all(self, job: Job) -> None:
        for name, write in writes_of(self._store, job).items():
            try:
                await write()
            except Superseded:
                print("void", name, flush=True)
            else:
                print("written", name, flush=True)


def writes_of(store: Store, job: Job) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every write that a worker can make."""
    record = InstanceRecord(f"1.2.{uuid4().int}", "1.2", bytes=1, blake3="")
    return {
        "move": lambda: store.move(job, to=WAY[job.state], what="too late"),
        "wait": lambda: store.move(job, after=5, what="too late"),
        "keep": lambda: store.keep(job, "too late", sent=99),
        "note": lambda: store.note(job, "too late"),
        "promise": lambda: store.promise(job, [record]),
        "sent": lambda: store.record_sent(job, [record]),
        "acknowledged": lambda: store.record_acknowledged(job, None),
        "plan": lambda: store.plan_deliveries(job, ["late"]),
        "delivery": lambda: store.record_delivery(job, "vna", "done", "too late"),
    }


async def _main(url: str, key: str, manner: str, lease: float) -> None:
    store = Store(url, Cipher([key]), pool_size=4)
    pace = Pace(room=4, lease=lease, slow_poll=min(150.0, lease), grace=1)
    async with Engine(store, url, Stranger(store, url, manner), {}, pace).working():
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
