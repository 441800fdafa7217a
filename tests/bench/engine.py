"""What the engine itself costs: jobs of five steps that do nothing, each fenced and chained in a history.

The yardstick commits as often and as durably with bare psycopg: an update and an insert, five times a job.
CPU is that of this process, and of PostgreSQL's with all its children.

    python -m tests.bench.engine [--jobs 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from gateway import logs
from gateway.embedded import server as embedded
from gateway.jobs.cipher import Cipher
from gateway.jobs.engine import Engine, Pace
from gateway.jobs.schema import migrate
from gateway.jobs.store import Store
from tests.bench.cpu import cpu_of
from tests.db.crew import Script, ask_for

_LOOPS = 8  # of the yardstick: as many transactions at a time
STEPS = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job."""

    per_second: float
    worker: float
    postgres: float

    @property
    def cpu(self) -> float:
        return self.worker + self.postgres


@asynccontextmanager
async def database() -> AsyncIterator[tuple[str, int]]:
    """A server as durable as a hospital's, and the number of its process."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        async with embedded.serve(Path(folder)) as url:
            await asyncio.to_thread(migrate, url)
            with psycopg.connect(url) as connection:
                shown = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
            assert shown is not None
            yield url, int(shown[0].split()[0])


async def measure(postmaster: int, jobs: int, work: Callable[[], Coroutine[Any, Any, None]]) -> Cost:
    ours, theirs, begin = _own_cpu(), cpu_of(postmaster), time.perf_counter()
    await work()
    took = time.perf_counter() - begin
    return Cost(jobs / took, 1e3 * (_own_cpu() - ours) / jobs, 1e3 * (cpu_of(postmaster) - theirs) / jobs)


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run_engine(store: Store, url: str, pace: Pace | None = None) -> None:
    """Until no job is left to work on."""
    async with Engine(store, url, Script(), {}, pace).working():
        with psycopg.connect(url, autocommit=True) as connection:
            while _left(connection):
                await asyncio.sleep(0.02)


def _left(connection: psycopg.Connection) -> bool:
    # By the index on next_at: the last step takes it away, and who looks costs next to nothing.
    row = connection.execute("SELECT EXISTS (SELECT FROM jobs WHERE next_at IS NOT NULL)").fetchone()
    return row is not None and bool(row[0])


async def run_bare(url: str, jobs: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bare_events, bare_jobs")
        connection.execute("CREATE TABLE bare_jobs (id int PRIMARY KEY, state text, fence int)")
        connection.execute("CREATE TABLE bare_events (id bigserial PRIMARY KEY, job int, what text)")
        connection.execute("INSERT INTO bare_jobs SELECT n, '0', 0 FROM generate_series(1, %s) n", (jobs,))
    numbers = iter(range(1, jobs + 1))

    async def loop() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            for number in numbers:
                for step in range(STEPS):
                    await connection.execute(
                        "WITH moved AS (UPDATE bare_jobs SET state = %s, fence = fence + 1"
                        " WHERE id = %s AND fence = %s RETURNING id)"
                        " INSERT INTO bare_events (job, what) SELECT id, %s FROM moved",
                        (str(step), number, step, f"step {step}"),
                    )

    async with asyncio.TaskGroup() as group:
        for _ in range(_LOOPS):
            group.create_task(loop())


async def compare(jobs: int, rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {"bare": [], "engine": []}
    async with database() as (url, postmaster):
        store = Store(url, Cipher([Fernet.generate_key().decode()]))
        for _ in range(rounds):
            costs["bare"].append(await measure(postmaster, jobs, lambda: run_bare(url, jobs)))
            for _ in range(jobs):
                await store.create(ask_for())
            costs["engine"].append(await measure(postmaster, jobs, lambda: run_engine(store, url)))
        await store.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with redirect_stderr(io.StringIO()):  # said as in the daemon, and heard by nobody
        logs.begin()
    costs = asyncio.run(compare(options.jobs, options.rounds))
    for name, told in costs.items():
        speed, worker, postgres = (
            statistics.median(getattr(cost, part) for cost in told)
            for part in ("per_second", "worker", "postgres")
        )
        print(
            f"{name:7} {speed:7.0f} jobs/s of {STEPS} commits each  {worker:6.2f} ms CPU in the worker"
            f"  {postgres:6.2f} in PostgreSQL  {worker + postgres:6.2f} in all"
        )
    ratio = statistics.median(
        ours.per_second / bare.per_second for ours, bare in zip(costs["engine"], costs["bare"], strict=True)
    )
    print(f"engine / bare: {ratio:4.2f} of its pace; target: at least 120 jobs/s and at most 8 ms in all")


if __name__ == "__main__":
    main()
