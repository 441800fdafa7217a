"""What a backlog costs those who don't wait in it: a small table beside one with a million jobs that have
ended and a hundred thousand that wait for a place at a limited vendor.

The small one has as many as fill a page of each list, so that both sides answer with as many rows, and
as many that wait.

    python -m tests.bench.backlog [--ended 1000000] [--waiting 100000] [--jobs 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stderr
from functools import partial
from urllib.parse import urlsplit

import psycopg
from cryptography.fernet import Fernet

from gateway import logs
from gateway.jobs.cipher import Cipher
from gateway.jobs.engine import Engine
from gateway.jobs.outcomes import Observer
from gateway.jobs.records import Job
from gateway.jobs.schema import migrate
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from tests.bench.cpu import cpu_of
from tests.bench.engine import database
from tests.db.crew import Script, ask_for

_LIMITS = {"limited": 8}
_REPEAT = 60
_SMALL = 1200  # jobs that have ended: a page of each of their applications
_PAGE = 50
_FOUND_ALONE = ("study", "accession", "slide")

_FILTERS = {
    "all": Filter(),
    "state": Filter(state=["held"]),
    "states": Filter(state=["held", "failed"]),
    "department": Filter(department=["another"]),
    "application": Filter(application=["a1"]),
    "adapter": Filter(adapter=["free"]),
    "study": Filter(study_instance_uid=["1.2.5"]),
    "accession": Filter(accession_number=["A5"]),
    "slide": Filter(slide_id=["s5"]),
}


def fill(url: str, ended: int, waiting: int) -> None:
    """Besides, of what is alike on both sides, a page each."""
    columns = (
        "id, department, application, adapter, origin, state, study_instance_uid, accession_number, slide_id,"
        " created_at, updated_at, next_at, at_vendor"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO jobs ({columns})"
            " SELECT gen_random_uuid(), 'd', 'a' || mod(n, 20), 'limited', 'rest'"
            ", 'done', '1.2.' || n, 'A' || n, 's' || n, now() - n * interval '1 s',"
            " now() - n * interval '1 s', NULL, false FROM generate_series(1, %s) n",
            (ended,),
        )
        connection.execute(
            f"INSERT INTO jobs ({columns})"
            " SELECT gen_random_uuid(), 'd', 'a' || mod(n, 20), 'limited', 'rest'"
            ", 'submitting', '1.3.' || n, 'B' || n, 't' || n, now(), now(), now(), n <= 8"
            " FROM generate_series(1, %s) n",
            (waiting,),
        )
        connection.execute(  # those that are at the vendor stay there
            "UPDATE jobs SET state = 'analysing', next_at = now() + interval '1 d' WHERE at_vendor"
        )
        connection.execute(
            f"INSERT INTO jobs ({columns})"
            " SELECT gen_random_uuid(), 'another', 'shown', 'free', 'rest'"
            ", (ARRAY['held', 'failed'])[1 + mod(n, 2)], '1.4.' || n, 'C' || n, 'u' || n,"
            " now() - n * interval '1 h', now() - n * interval '1 h', NULL, false"
            " FROM generate_series(1, %s) n",
            (2 * _PAGE,),
        )
        connection.execute("VACUUM ANALYZE")


class Side:
    """One of the two databases."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.store = Store(url, Cipher([key]))
        self.seconds: dict[str, list[float]] = {}
        self.postgres: list[float] = []

    async def time(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        begin = time.perf_counter()
        await work()
        self.seconds.setdefault(what, []).append(time.perf_counter() - begin)

    async def look(self) -> None:
        await self.store.look(32, _LIMITS)

    async def show(self, name: str) -> None:
        found = await self.store.find(_FILTERS[name])
        assert len(found) == (1 if name in _FOUND_ALONE else _PAGE), name

    async def take_in(self) -> None:
        await self.store.create(ask_for(adapter="free", department="another"))

    @asynccontextmanager
    async def one_job(self) -> AsyncIterator[None]:
        """That can go."""
        job, _ = await self.store.create(ask_for(adapter="free"))
        yield
        await self.store.cancel(job.id, "bench")
        [cancelled] = await self.store.claim(1, 1, 60, _LIMITS)
        await self.store.move(cancelled, after=None)

    async def take_and_put_back(self) -> None:
        [job] = await self.store.claim(1, 1, 60, _LIMITS)
        assert job.adapter == "free"
        await self.store.move(job)

    async def work_off(self, jobs: int, postmaster: int) -> None:
        """What was taken in."""
        used = cpu_of(postmaster)
        counted = Counted(jobs)
        engine = Engine(self.store, self.url, Script(), _LIMITS, observer=counted, vendors=2)
        async with engine.working():
            await counted.all_done.wait()
        self.postgres.append((cpu_of(postmaster) - used) / jobs)


class Counted(Observer):
    def __init__(self, expected: int) -> None:
        self._left = expected
        self.all_done = asyncio.Event()

    def ended(self, job: Job, state: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.all_done.set()


async def run(sides: Sequence[Side], jobs: int, postmaster: int) -> None:
    """They take turns, call by call, so that whatever else the machine does is as bad for both."""
    for _ in range(_REPEAT):
        for side in sides:
            await side.time("next_due", side.look)
    async with AsyncExitStack() as stack:
        for side in sides:
            await stack.enter_async_context(side.one_job())
        for _ in range(_REPEAT):
            for side in sides:
                await side.time("claim and move", side.take_and_put_back)
    for name in _FILTERS:
        for _ in range(_REPEAT):
            for side in sides:
                await side.time(f"list by {name}", partial(side.show, name))
    for _ in range(jobs):
        for side in sides:
            await side.time("intake", side.take_in)
    for side in sides:
        await side.time("whole jobs", partial(side.work_off, jobs, postmaster))


async def compare(ended: int, waiting: int, jobs: int, rounds: int) -> tuple[Side, Side]:
    key = Fernet.generate_key().decode()
    async with database() as (url, postmaster):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE backlog")
        full_url = urlsplit(url)._replace(path="/backlog").geturl()
        await asyncio.to_thread(migrate, full_url)
        await asyncio.to_thread(fill, url, _SMALL, _PAGE)
        await asyncio.to_thread(fill, full_url, ended, waiting)
        sides = small, full = Side(url, key), Side(full_url, key)
        await run(sides, jobs, postmaster)  # the first calls of all
        for side in sides:
            side.seconds.clear()
            side.postgres.clear()
        for _ in range(rounds):
            sides = sides[1], sides[0]
            await run(sides, jobs, postmaster)
        for side in sides:
            await side.store.close()
    return small, full


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ended", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with redirect_stderr(io.StringIO()):  # said as in the daemon, and heard by nobody
        logs.begin()
    small, full = asyncio.run(compare(options.ended, options.waiting, options.jobs, options.rounds))
    for what, told in small.seconds.items():
        before, behind = statistics.median(told), statistics.median(full.seconds[what])
        print(
            f"{what:20} {1e3 * before:8.2f} ms small  {1e3 * behind:8.2f} ms with the backlog:"
            f" {before / behind:4.2f} of its pace"
        )
    before, behind = statistics.median(small.postgres), statistics.median(full.postgres)
    print(
        f"{'PostgreSQL, a job':20} {1e3 * before:8.2f} ms CPU    {1e3 * behind:8.2f} ms CPU:"
        f" {behind / before:4.2f} ×"
    )
    print("target: at least 0.8 of the small one's pace in each, and at most 1.2 × of PostgreSQL's work")


if __name__ == "__main__":
    main()
