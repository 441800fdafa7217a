"""What an idle pass of housekeeping costs beside so many finished jobs: under 50 ms, however many there are.

python -m tests.bench.upkeep [--jobs 200000]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import structlog
from cryptography.fernet import Fernet

from gateway.archives.spool import Spool
from gateway.embedded import server as embedded
from gateway.jobs.cipher import Cipher
from gateway.jobs.schema import migrate
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.work.housekeeping import Housekeeping

WITHIN = 0.05
ROUNDS = 15


async def measure(jobs: int, folder: Path) -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    async with embedded.serve(folder / "postgres", fast=True) as url:
        await asyncio.to_thread(migrate, url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO jobs (id, department, application, adapter, origin, state, study_instance_uid,"
                " updated_at) SELECT gen_random_uuid(), 'd', 'a' || n %% 5, 'v', 'rest', 'done', '1.2.' || n,"
                " now() - (n %% 300) * interval '1 day' FROM generate_series(1, %s) n",
                [jobs],
            )
            connection.execute(
                "INSERT INTO instances (job_id, sop_instance_uid, series_instance_uid)"
                " SELECT id, '2.' || study_instance_uid, '3' FROM jobs"
            )
            connection.execute("VACUUM ANALYZE")
        store = Store(url, Cipher([Fernet.generate_key().decode()]))
        keeping = Housekeeping(Settings.model_construct(departments={}), store, Spool(folder))
        took: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, part in (
                ("sweep", keeping.sweep),
                ("purge", keeping.purge),
                ("recovery", store.holding_peers),
                ("a mere question", store.ping),
            ):
                began = time.monotonic()
                await part()
                took.setdefault(name, []).append(time.monotonic() - began)
        await store.close()
    middle = {name: statistics.median(each) for name, each in took.items()}
    print(f"beside {jobs} finished jobs: " + ", ".join(f"{n} {s * 1000:.1f} ms" for n, s in middle.items()))
    question = middle.pop("a mere question")  # on a busy machine it is nearly all
    cost = sum(middle.values()) - 2 * question
    print(f"an idle pass, beyond its two questions as such: {cost * 1000:.1f} ms")
    return cost <= WITHIN


def main() -> int:
    asked = argparse.ArgumentParser(prog="tests.bench.upkeep")
    asked.add_argument("--jobs", type=int, default=200_000)
    given, _ = asked.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(given.jobs, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
