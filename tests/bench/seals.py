"""How long it takes to seal and to verify so many jobs of six events, and how much memory: a million in under
five minutes, in less than 500 MiB.

    python -m tests.bench.seals [--jobs 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import structlog
from cryptography.fernet import Fernet

from gateway.embedded import server as embedded
from gateway.jobs.cipher import Cipher
from gateway.jobs.inspection import Inspection
from gateway.jobs.schema import migrate
from gateway.jobs.signing import SealKey, TrustedKeys
from gateway.jobs.store import Store
from gateway.settings.keys import seal_key
from gateway.settings.sections import Settings
from gateway.work.sealing import Sealing, seals_file
from tests.peers.histories import make_jobs

WITHIN = 300.0  # for a million
MEMORY = 500 << 20


async def measure(jobs: int, folder: Path) -> bool:
    async with embedded.serve(folder / "postgres", fast=True) as url:
        await asyncio.to_thread(migrate, url)
        with psycopg.connect(url, autocommit=True) as connection:
            await asyncio.to_thread(make_jobs, connection, jobs)
            connection.execute("VACUUM ANALYZE")
        before = _memory()
        store = Store(url, Cipher([Fernet.generate_key().decode()]))
        settings = Settings.model_construct(data_dir=folder, seal_key=None)
        lag = asyncio.create_task(_worst_lag())
        began = time.monotonic(), time.process_time()
        seals = await Sealing(settings, store).seal()
        _tell("sealed", jobs, began)
        lag.cancel()
        print(f"  {seals} seals; the event loop was away for {_lag * 1000:.0f} ms at the most")
        inspection = Inspection()
        began = time.monotonic(), time.process_time()
        keys = TrustedKeys([SealKey(seal_key(settings)).public])
        await inspection.run(store, keys, [seals_file(folder)])
        took = _tell("verified", jobs, began)
        await store.close()
    grown = _memory() - before
    print(f"  memory grew by {grown >> 20} MiB; {inspection.events} events, breaks: {inspection.breaks[:3]}")
    return not inspection.breaks and took <= WITHIN and grown <= MEMORY


def _tell(what: str, jobs: int, began: tuple[float, float]) -> float:
    """Returns the seconds for a million."""
    took, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    million = took / jobs * 1e6
    print(f"{what} {jobs} jobs in {took:.1f} s ({cpu:.1f} s of CPU here): {million:.0f} s for a million")
    return million


_lag = 0.0


async def _worst_lag() -> None:
    global _lag
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        _lag = max(_lag, time.monotonic() - began - 0.01)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    asked = argparse.ArgumentParser(prog="tests.bench.seals")
    asked.add_argument("--jobs", type=int, default=100_000)
    given, _ = asked.parse_known_args()
    structlog.configure(processors=[lambda *_: {}], logger_factory=lambda *_: _Silent())
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(given.jobs, Path(folder))) else 1


class _Silent:
    def msg(self, *_: object, **__: object) -> None:
        pass

    debug = info = warning = error = msg


if __name__ == "__main__":
    sys.exit(main())
