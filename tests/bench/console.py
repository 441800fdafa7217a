"""How soon the console answers from a full database: each page's time in the server, until its last byte, and
how many times that of a database with a thousand jobs, which tells on a busy machine what grows.

python -m tests.bench.console [--jobs 1000000] [--rounds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import yaml
from cryptography.fernet import Fernet

from gateway.embedded import server as embedded
from gateway.jobs.schema import migrate

TOKEN = "bench"
TARGET = 0.3
APPLICATIONS = ["trauma", *(f"app-{number}" for number in range(1, 11))]
Took = dict[str, tuple[float, float]]  # of each page, the median and the slowest
_ENDED = """INSERT INTO jobs (id, department, application, adapter, origin, state, created_at, updated_at,
  study_instance_uid, accession_number, ticket)
SELECT gen_random_uuid(), 'emergency', 'trauma', 'milvue', 'rest',
  CASE n %% 20 WHEN 0 THEN 'failed' ELSE 'done' END, now() - n * interval '30 seconds',
  now() - n * interval '30 seconds' + interval '40 seconds', '1.2.' || n, 'A' || n,
  jsonb_build_object('reference', 'R' || n) FROM generate_series(1, %s) n"""
_LIVING = """INSERT INTO jobs (id, department, application, adapter, origin, state, held_in, error_kind,
  error_message, error_advice, study_instance_uid)
SELECT gen_random_uuid(), 'emergency', 'trauma', 'milvue', 'rest',
  CASE n % 2 WHEN 0 THEN 'held' ELSE 'analysing' END, 'locating', 'needs_human',
  'cause number ' || n % 5, 'Mend it.', '1.3.' || n
FROM generate_series(1, 1000) n"""


_ACTS = """INSERT INTO audit (who, what, job_id, at)
SELECT CASE n %% 1000 WHEN 0 THEN 'rare' ELSE 'ops' END,
  CASE n %% 9999 WHEN 0 THEN 'pause' ELSE 'looked at' END,
  gen_random_uuid(), now() - (%s - n) * interval '30 seconds' FROM generate_series(1, %s) n"""
_TALLIES = """INSERT INTO tallies SELECT 'app-' || app, '1.' || day / 200, current_date - day, what, 40
FROM generate_series(1, least(400, %s / 2500)) day, generate_series(1, 10) app,
  unnest(ARRAY['result', 'positive', 'empty', 'unsuitable', 'failed'] || ARRAY(
    SELECT 'took:' || n FROM generate_series(10, 29) n)) what"""


_TRIED = """WITH own AS (
  SELECT id, row_number() OVER (ORDER BY created_at DESC) AS n FROM jobs
  WHERE application = 'trauma' AND state = 'done' ORDER BY created_at DESC LIMIT least(%s / 20, 50000)
), made AS (SELECT gen_random_uuid() AS id, id AS of, n FROM own
), tried AS (
  INSERT INTO jobs (id, department, application, adapter, origin, state, beside, created_at, updated_at)
  SELECT id, 'emergency', 'trauma', 'candidate', 'rest', 'done', true, now() - n * interval '30 seconds',
    now() - n * interval '30 seconds' FROM made
)
INSERT INTO shadows (job_id, of, application, shadow, began_at, compared_at,
  own_outcome, own_seconds, own_found, outcome, seconds, found)
SELECT id, of, 'trauma', 'candidate', now() - n * interval '30 seconds', now(),
  'result', 64, CASE n %% 3 WHEN 0 THEN ARRAY['fracture'] ELSE '{}' END,
  CASE n %% 40 WHEN 0 THEN 'failed' ELSE 'result' END, 31,
  CASE WHEN n %% 3 = 0 AND n %% 5 > 0 THEN ARRAY['fracture']
    WHEN n %% 20 = 1 THEN ARRAY['effusion'] ELSE '{}' END FROM made"""


def main() -> None:
    asked = argparse.ArgumentParser(prog="tests.bench.console")
    asked.add_argument("--jobs", type=int, default=1_000_000)
    asked.add_argument("--rounds", type=int, default=20)
    given, _ = asked.parse_known_args()
    few = asyncio.run(measure(1000, given.rounds))
    many = asyncio.run(measure(given.jobs, given.rounds))
    for name, (median, slowest) in many.items():
        print(
            f"{name:<26} median {median * 1000:6.1f} ms   slowest {slowest * 1000:6.1f} ms"
            f"   {median / few[name][0]:5.1f} times that of 1000 jobs",
            flush=True,
        )
    worst = max(median for median, _ in many.values())
    print(f"the slowest page's median: {worst * 1000:.0f} ms (target: under {TARGET * 1000:.0f} ms)")
    sys.exit(worst > TARGET)


async def measure(jobs: int, rounds: int) -> Took:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded.serve(Path(folder) / "postgres", fast=True) as url:
            await asyncio.to_thread(migrate, url)
            job = await asyncio.to_thread(fill, url, jobs)
            port = await asyncio.to_thread(configure, Path(folder), url)
            command = [sys.executable, "-m", "gateway", "run", "--only", "intake"]
            gateway = subprocess.Popen(
                [*command, "--config", f"{folder}/gateway.yaml"], stderr=subprocess.DEVNULL
            )
            try:
                return await look(f"http://127.0.0.1:{port}", job, rounds)
            finally:
                gateway.terminate()
                await asyncio.to_thread(gateway.wait)


def fill(url: str, jobs: int) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_ENDED, [jobs])
        connection.execute(_LIVING)
        connection.execute(_TRIED, [jobs])
        connection.execute(_ACTS, [jobs, jobs])
        connection.execute(_TALLIES, [jobs])
        connection.execute("VACUUM ANALYZE")
        row = connection.execute("SELECT id FROM jobs WHERE state = 'held' LIMIT 1").fetchone()
        assert row is not None
        return str(row[0])


def configure(folder: Path, url: str) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    application = {
        "display_name": "Trauma",
        "manufacturer": "Milvue",
        "adapter": "milvue",
        "archives": ["vna"],
    }
    adapter = {"kind": "milvue", "url": "http://127.0.0.1:9", "token": "x", "commands": ["smarturgences"]}
    applications: dict[str, Any] = {name: {**application, "deliver": []} for name in APPLICATIONS}
    applications["trauma"]["shadow"] = ["candidate"]
    (folder / "gateway.yaml").write_text(
        yaml.safe_dump(
            {
                "listen": {"host": "127.0.0.1", "port": port},
                "database_url": url,
                "data_dir": str(folder / "data"),
                "secret_keys": [Fernet.generate_key().decode()],
                "api_tokens": [
                    {"name": TOKEN, "role": "operator", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
                ],
                "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web"}},
                "adapters": {"milvue": adapter, "candidate": adapter},
                "departments": {"emergency": {"applications": applications}},
            }
        )
    )
    return port


async def look(url: str, job: str, rounds: int) -> Took:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        page = await _enter(browser, url)
        csrf = re.findall(r'name="csrf" value="([^"]+)"', page)[0]
        places = {
            "now": "/",
            "jobs": "/jobs",
            "jobs, held": "/jobs?state=held",
            "jobs, of an application": "/jobs?application=trauma&state=done",
            "a job": f"/jobs/{job}",
            "asking to resume all": "/jobs/act?do=resume&state=held",
            "asking to resume few": "/jobs/act?do=resume&application=app-3",
            "asking to cancel few": "/jobs/act?do=cancel&application=app-3",
            "peers": "/peers",
            "quality": "/quality",
            "quality, of a shadowed": "/quality?application=trauma",
            "audit": "/audit",
            "audit, by a person": "/audit?who=rare",
            "audit, by an act": "/audit?what=pause",
            "audit, of nobody": "/audit?who=nobody",
            "audit, of a job": f"/audit?job={job}",
            "audit, since lately": f"/audit?since={datetime.now(UTC) - timedelta(minutes=5):%F+%H:%M}",
            "configuration": "/configuration",
            "API": "/api/v1/",
        }
        took = {
            name: await _time(name, rounds, browser, "GET", url + place) for name, place in places.items()
        }
        form = {"csrf": csrf, "for": "A77"}
        took["search"] = await _time("search", rounds, browser, "POST", f"{url}/search", form)
        return took


async def _enter(browser: aiohttp.ClientSession, url: str) -> str:
    page = ""
    for _ in range(3000):
        try:
            async with browser.get(f"{url}/sign-in") as answer:
                page = await answer.text()
                break
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
    csrf = re.findall(r'name="csrf" value="([^"]+)"', page)[0]
    async with browser.post(f"{url}/sign-in", data={"csrf": csrf, "token": TOKEN}) as answer:
        return await answer.text()


async def _time(
    name: str,
    rounds: int,
    browser: aiohttp.ClientSession,
    method: str,
    address: str,
    form: dict[str, str] | None = None,
) -> tuple[float, float]:
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        async with browser.request(method, address, data=form) as answer:
            await answer.read()
            assert answer.status == 200, (name, answer.status)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:]), max(took)


if __name__ == "__main__":
    main()
