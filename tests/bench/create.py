"""How fast a click is acknowledged: `create`, 32 connections, one process that only takes in (its jobs wait).

    temporary   beside a bare aiohttp handler that reads the JSON and commits one row by psycopg, same server
    stored      beside the way of the SDK's example (info, list, create; gunicorn, 5 workers), same simulator

Each click is for a slide of its own, on which nothing stands. The ways take turns, so that a busy machine is
fair to all; the caller is a process of its own. What a click costs of a processor, in all processes but the
caller's, is told too: other work on the machine changes that least.

    python -m tests.bench.create [--rounds 3] [--clicks 1000] [--connections 32]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml
from cryptography.fernet import Fernet

from tests.bench.cpu import cpu_of

APPLICATION = "bench"
WAYS = ("bare", "temporary", "sdk", "stored")
TARGETS = "targets: temporary at least 0.50 of bare, p99 < 60 ms; stored at least 2.00 of sdk, p99 < 150 ms"


# -- the yardsticks, each a process of its own --------------------------------------------------------------


def serve_bare(port: int, database_url: str) -> None:
    from aiohttp import web
    from psycopg_pool import AsyncConnectionPool

    async def start(app: web.Application) -> AsyncIterator[None]:
        async with AsyncConnectionPool(database_url, min_size=10, max_size=10) as pool:
            async with pool.connection() as connection:
                await connection.execute("CREATE TABLE IF NOT EXISTS bare (slide text, body jsonb)")
            app["pool"] = pool
            yield

    async def take(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        async with request.app["pool"].connection() as connection:
            await connection.execute(
                "INSERT INTO bare VALUES (%s, %s)", (body["slideId"], json.dumps(body["input"]))
            )
        return web.json_response({"slideId": body["slideId"]})

    import uvloop

    app = web.Application()
    app.cleanup_ctx.append(start)
    app.router.add_post("/ia/{application}", take)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def sdk_app() -> Any:
    """As the SDK shows it: a fresh client for each invocation, its calls one after another."""
    from flask import Flask, jsonify, request
    from sectra_client import SectraClient
    from sectra_client.schemas import Result

    app = Flask(__name__)

    @app.post("/ia/<application>")
    def invoke(application: str) -> Any:
        asked = request.get_json()
        callback = asked["callbackInfo"]
        with SectraClient(callback["url"], callback["token"], _allow_http=True) as client:
            client.get_image_metadata(asked["slideId"])
            client.get_all_results(asked["slideId"], application)
            said = {
                "slideId": asked["slideId"],
                "displayResult": "queued",
                "displayProperties": {},
                "applicationVersion": "1.0",
                "data": {"context": {}, "result": {"type": "primitive", "content": []}},
            }
            stored = client.create_results(application, Result.model_validate(said))
        return jsonify(stored.model_dump(mode="json"))

    return app


# -- the caller ---------------------------------------------------------------------------------------------


async def _click(address: tuple[str, int], bodies: list[bytes], took: list[float], wrong: list[str]) -> None:
    reader = writer = None
    while bodies:
        body = bodies.pop()
        head = f"POST /ia/{APPLICATION} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        began = time.perf_counter()
        if writer is None or reader is None:
            reader, writer = await asyncio.open_connection(*address)
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        answer = await reader.readexactly(int(headers["content-length"]))
        took.append(time.perf_counter() - began)
        if " 200 " not in status + " ":
            wrong.append(f"{status}: {answer[:200]!r}")
        if headers.get("connection") == "close":
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


async def call(port: int, sectra: str, token: str, clicks: int, connections: int, first: int) -> None:
    bodies = [
        json.dumps(
            {
                "applicationId": APPLICATION,
                "slideId": f"bulk-1x{first + number}B",
                "callbackInfo": {"url": sectra, "token": token},
                "context": {},
                "cancellationToken": f"bench-{first + number}",
                "action": "create",
                "input": {"type": "wholeSlide"},
            }
        ).encode()
        for number in range(clicks)
    ]
    took: list[float] = []
    wrong: list[str] = []
    began = time.perf_counter()
    await asyncio.gather(*(_click(("127.0.0.1", port), bodies, took, wrong) for _ in range(connections)))
    seconds = time.perf_counter() - began
    if wrong:
        raise SystemExit(f"{len(wrong)} clicks were refused: {wrong[0]}")
    took.sort()
    print(json.dumps([clicks / seconds, took[int(len(took) * 0.99)] * 1000, took[len(took) // 2] * 1000]))


# -- the measurement ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(*command: str, port: int, tree: Path | None = None) -> Iterator[int]:
    """`tree`: where another version of our modules lies."""
    whole = [sys.executable, *command]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=log, cwd=tree) as process,
    ):
        try:
            for _ in range(600):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{command} ended at once: {log.read().decode()[-2000:]}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()


def configuration(folder: Path, how: str, port: int, database_url: str, sectra: str) -> Path:
    application = {
        "display_name": "Bench",
        "manufacturer": "Bench",
        "adapter": "vendor",
        "archives": ["vna"],
        "deliver": ["sectra"],
    }
    told = {
        "listen": {"host": "127.0.0.1", "port": port},
        "database_url": database_url,
        "data_dir": str(folder / how),
        "secret_keys": [Fernet.generate_key().decode()],
        "sectra": {"acknowledge": how, "servers": {"main": {"callback_urls": [f"{sectra}/"]}}},
        "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web"}},
        "adapters": {"vendor": {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web"}},
        "departments": {"bench": {"contact": "it@hospital", "applications": {APPLICATION: application}}},
    }
    path = folder / f"{how}.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[dict[str, int], dict[str, int], str]]:
    """Port and process by way, and Sectra's address. All stand on one database, and on one Sectra."""
    from gateway.embedded.server import serve

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(folder / "database"))
        ports = {way: free_port() for way in (*WAYS, "sectra")}
        postmaster = folder / "database" / "postgres" / "cluster" / "postmaster.pid"
        pids = {"database": int(postmaster.read_text().split()[0])}

        def start(way: str, *command: str) -> None:
            pids[way] = stack.enter_context(running(*command, port=ports[way]))

        start("sectra", "-m", "gateway", "simulate", "sectra", "--port", str(ports["sectra"]))
        sectra = f"http://127.0.0.1:{ports['sectra']}"
        start("bare", "-m", "tests.bench.create", "--serve-bare", str(ports["bare"]), url)
        gunicorn = ("-m", "gunicorn", "--workers", "5", "--bind", f"127.0.0.1:{ports['sdk']}")
        start("sdk", *gunicorn, "tests.bench.create:sdk_app()")
        for how in ("temporary", "stored"):
            path = configuration(folder, how, ports[how], url, sectra)
            start(how, "-m", "gateway", "run", "--only", "intake", "--config", str(path))
        yield ports, pids, sectra


def _cpu_behind(way: str, pids: dict[str, int]) -> float:
    return sum(cpu_of(pids[each]) for each in (way, "database", "sectra"))


async def measure(rounds: int, clicks: int, connections: int) -> dict[str, list[list[float]]]:
    told: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        async with scene(Path(name)) as (ports, pids, sectra):
            asking = Request(f"{sectra}/control/mint-token", method="POST")
            with urlopen(asking, timeout=10) as answer:
                minted = json.load(answer)
            asked = [minted["url"], minted["token"]]
            number = 1
            for turn in range(rounds + 1):
                for way in WAYS:
                    count = clicks if turn else clicks // 5  # the first turn only warms up
                    told_caller = json.dumps([ports[way], *asked, count, connections, number])
                    command = [sys.executable, "-m", "tests.bench.create", "--call", told_caller]
                    used = _cpu_behind(way, pids)
                    caller = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
                    said, _ = await caller.communicate()
                    if caller.returncode:
                        raise SystemExit(f"{way}: the caller failed")
                    if turn:
                        told[way].append([*json.loads(said), 1e3 * (_cpu_behind(way, pids) - used) / count])
                    number += count
    return told


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--clicks", type=int, default=1000)
    asked.add_argument("--connections", type=int, default=32)
    asked.add_argument("--serve-bare", nargs=2, help=argparse.SUPPRESS)
    asked.add_argument("--call", type=json.loads, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.serve_bare:
        serve_bare(int(given.serve_bare[0]), given.serve_bare[1])
        return
    if given.call:
        asyncio.run(call(*given.call))
        return
    told = asyncio.run(measure(given.rounds, given.clicks, given.connections))
    beside = {"temporary": "bare", "stored": "sdk"}
    for way in WAYS:
        rate, p99, median, cpu = (statistics.median(each) for each in zip(*told[way], strict=True))
        ratio = ""
        if way in beside:
            ratios = [a[0] / b[0] for a, b in zip(told[way], told[beside[way]], strict=True)]
            less = [b[3] / a[3] for a, b in zip(told[way], told[beside[way]], strict=True)]
            ratio = f"   {statistics.median(ratios):.2f} of {beside[way]}"
            ratio += f", {statistics.median(less):.2f} by what it costs"
        said = f"median {median:6.1f} ms   p99 {p99:6.1f} ms   {cpu:5.2f} ms CPU"
        print(f"{way:<10} {rate:7.0f}/s   {said}{ratio}")
    print(TARGETS)


if __name__ == "__main__":
    main()
