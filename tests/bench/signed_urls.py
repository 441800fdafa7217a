"""How much sooner a study is at Milvue when its instances go to their signed urls several at once, beside one
after the other.

The store is a server on loopback, in a process of its own, which answers each call after a delay as if it
were far away. Both ways take turns with the same instances.

    python -m tests.bench.signed_urls [--instances 500] [--kib 64] [--delay 0.05] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import aiohttp
import uvloop
from aiohttp import web

from adapters.milvue.adapter import Milvue
from adapters.milvue.wire import Options
from gateway.suite.studies import ORDER, STUDY, GivenInstance, GivenStudy

TARGET = 3.0
SOP = re.compile(rb"\x08\0\x18\0UI..([0-9.]+)", re.DOTALL)


def serve_store(told: Connection, delay: float) -> None:
    counts = {"puts": 0}

    async def take_headers(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(delay)
        sops = {found.decode() for found in SOP.findall(body)}
        urls = {sop: f"http://{request.host}/blob/{sop}" for sop in sops}
        return web.json_response({"StudyInstanceUID": STUDY, "signed_urls": urls})

    async def take_instance(request: web.Request) -> web.Response:
        async for _ in request.content.iter_any():
            pass
        await asyncio.sleep(delay)
        counts["puts"] += 1
        return web.Response(status=201)

    async def tell_counts(_: web.Request) -> web.Response:
        return web.json_response(counts)

    async def serve() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v3/studies", take_headers)
        app.router.add_put("/blob/{sop}", take_instance)
        app.router.add_get("/counts", tell_counts)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    uvloop.run(serve())


class Prepared(GivenStudy):
    """Made beforehand, so that making it isn't measured."""

    async def prepare(self) -> None:
        self.made = [instance async for instance in super().instances()]

    async def instances(self) -> AsyncIterator[GivenInstance]:
        for instance in self.made:
            yield instance


async def send(url: str, study: Prepared, **options: int) -> float:
    given = {"url": url, "token": "t", "commands": ["smarturgences"], "signed_url": True, **options}
    with tempfile.TemporaryDirectory() as work:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            began = time.perf_counter()
            ticket = await Milvue(Options.model_validate(given), session, Path(work)).submit(ORDER, study)
            took = time.perf_counter() - began
    assert len(ticket.acknowledged or ()) == study.promised
    return took


async def measure(url: str, given: argparse.Namespace) -> bool:
    study = Prepared(promised=given.instances, size=given.kib * 1024)
    await study.prepare()
    took: dict[str, list[float]] = {"one after the other": [], "several at once": []}
    for _ in range(given.rounds):
        took["one after the other"].append(await send(url, study, uploads_at_once=1))
        took["several at once"].append(await send(url, study))
        for name, seconds in took.items():
            print(f"{name:20} {seconds[-1]:6.2f} s", flush=True)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/counts") as answer:
        assert json.loads(await answer.read())["puts"] == 2 * given.rounds * given.instances
    ratio = median(alone / many for alone, many in zip(*took.values(), strict=True))
    told = f"{given.instances} instances at {given.delay * 1000:g} ms"
    print(f"{told}: {ratio:.1f} times as fast (target {TARGET:g})")
    return bool(ratio >= TARGET)


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("--instances", type=int, default=500)
    asked.add_argument("--kib", type=int, default=64)
    asked.add_argument("--delay", type=float, default=0.05)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    hears, tells = multiprocessing.Pipe(duplex=False)
    store = multiprocessing.get_context("spawn").Process(target=serve_store, args=(tells, given.delay))
    store.start()
    try:
        good = uvloop.run(measure(f"http://127.0.0.1:{hears.recv()}", given))
    finally:
        store.kill()
        store.join()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
