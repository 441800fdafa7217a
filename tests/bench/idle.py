"""What a gateway costs that has nothing to do: its share of one processor, PostgreSQL's, and its memory; and
how often one of its threads wakes and PostgreSQL is asked, which doesn't depend on who else is at work.

python -m tests.bench.idle [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.bench.cpu import cpu_of
from tests.bench.engine import database
from tests.peers.gateway import hospital

_SETTLES = 10.0  # what only a start does


@dataclass(frozen=True, slots=True)
class Idle:
    """Per cent of a processor, times a minute, MiB."""

    gateway: float
    postgres: float
    wakes: float
    transactions: float
    memory: float


async def measure(seconds: float) -> Idle:
    with tempfile.TemporaryDirectory() as folder:
        async with database() as (url, postmaster), hospital(Path(folder), url) as house:
            gateway = await house.start(cold=True)
            pid = gateway.process.pid
            await asyncio.sleep(_SETTLES)
            before = cpu_of(pid), cpu_of(postmaster), _wakes_of(pid), _transactions_of(url)
            await asyncio.sleep(seconds)
            after = cpu_of(pid), cpu_of(postmaster), _wakes_of(pid), _transactions_of(url)
            ours, theirs, wakes, transactions = (b - a for a, b in zip(before, after, strict=True))
            of_a_minute = 60 / seconds
            return Idle(
                100 * ours / seconds,
                100 * theirs / seconds,
                wakes * of_a_minute,
                transactions * of_a_minute,
                _memory_of(pid),
            )


def _wakes_of(pid: int) -> float:
    """Of all its threads: how often one went to sleep by itself."""
    told = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(each.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for each in told)


def _transactions_of(url: str) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        counted = (
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        row = connection.execute(counted).fetchone()
        return float(row[0]) if row else 0.0


def _memory_of(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1]
    return int(told.split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    told = asyncio.run(measure(options.seconds))
    print(
        f"gateway {told.gateway:5.2f} % of a processor  PostgreSQL {told.postgres:5.2f} %"
        f"  memory {told.memory:4.0f} MiB  {told.wakes:.0f} wake-ups and {told.transactions:.0f} transactions"
        " a minute"
    )
    print("target: less than 0.5 % and 130 MiB for the gateway")


if __name__ == "__main__":
    main()
