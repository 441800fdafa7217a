"""How fast a slide's files pass through the callback route of a vendor's job, beside a bare aiohttp relay of
the same bytes.

Each relay has a process of its own, so that its peak is its own; they take turns, so that a busy machine is
fair to both. The slide comes from the page cache through sendfile and is thrown away at the other end, so
that neither is what is measured. Ours is the whole door: a token looked up in PostgreSQL, the call recorded.

    python -m tests.bench.passage [--mib 1024] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import aiohttp
import uvloop
from aiohttp import web
from cryptography.fernet import Fernet

SLIDE = "slide"
TARGET = 0.8


def serve_slide(listener: socket.socket, file: Path) -> None:
    """Sectra, as far as it matters here."""
    size = file.stat().st_size
    while True:
        connection, _ = listener.accept()
        with connection, file.open("rb") as source:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n"
                b'Content-Disposition: attachment; filename="slide.svs"\r\nContent-Length: %d\r\n\r\n' % size
            )
            sent = 0
            while sent < size:
                sent += os.sendfile(connection.fileno(), source.fileno(), sent, size - sent)


async def relay_bare(given: argparse.Namespace) -> None:
    async with aiohttp.ClientSession(read_bufsize=2**20) as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            async with session.get(f"{given.source}/slides/{SLIDE}/files") as answer:
                response = web.StreamResponse(headers={"Content-Length": answer.headers["Content-Length"]})
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        app = web.Application()
        app.router.add_get("/slides/{slide}/files", pass_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tell(runner.addresses[0][1], "", "none")
        await asyncio.Event().wait()


async def relay_ours(given: argparse.Namespace) -> None:
    from gateway.building.entrances import listening
    from gateway.building.house import build
    from gateway.jobs.records import NewJob, Origin
    from gateway.jobs.schema import migrate
    from gateway.settings.sections import Settings

    settings = Settings.model_validate(
        {
            "public_url": "http://127.0.0.1",
            "listen": {"port": 0},
            "database_url": given.database,
            "secret_keys": [Fernet.generate_key().decode()],
            "data_dir": given.folder,
            "sectra": {"servers": {"main": {"callback_urls": [given.source]}}},
            "adapters": {"kidney": {"kind": "sectra-ia", "url": "http://127.0.0.1:9/ia"}},
            "departments": {
                "bench": {"applications": {"kidney-ai": {"display_name": "Kidney", "adapter": "kidney"}}}
            },
        }
    )
    await asyncio.to_thread(migrate, given.database)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(build(settings, given.database))
        port = await stack.enter_async_context(listening(house.doors, settings))
        await house.lasting.store.create(
            NewJob(
                department="bench",
                application="kidney-ai",
                adapter="kidney",
                origin=Origin.SECTRA,
                slide_id=SLIDE,
                server="main",
                callback_url=given.source,
                callback_token="a-token",
            )
        )
        [job] = await house.lasting.store.claim(1, 1, 3600, {})
        callback = await house.lasting.store.open_grant(job, "", fresh=True)
        tell(port, "/adapters/kidney", callback.token)
        await asyncio.Event().wait()


def tell(port: int, path: str, token: str) -> None:
    print(json.dumps({"port": port, "path": f"{path}/slides/{SLIDE}/files", "token": token}), flush=True)


RELAYS = {"ours": relay_ours, "bare": relay_bare}


class Relay:
    def __init__(self, name: str, source: str, database: str, folder: str) -> None:
        command = [sys.executable, "-m", "tests.bench.passage", "--as", name, "--source", source]
        self.process = subprocess.Popen(
            [*command, "--database", database, "--folder", folder], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"port"'):
                self.told = json.loads(line)
                return
        raise SystemExit(f"{name} didn't start")

    def fetch(self, size: int) -> float:
        """Seconds until all has come."""
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.told["port"])) as connection:
            connection.sendall(
                f"GET {self.told['path']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Authorization: Bearer {self.told['token']}\r\n\r\n".encode()
            )
            buffer = bytearray(4 << 20)
            head = connection.recv(65536)
            status = head.split(b"\r\n")[0]
            got = len(head.partition(b"\r\n\r\n")[2])
            while count := connection.recv_into(buffer):
                got += count
        if b" 200 " not in status or got < size:
            raise SystemExit(f"{got} of {size} bytes came: {status.decode()}")
        return time.perf_counter() - began

    def peak(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


async def measure(source: str, size: int, rounds: int, folder: Path) -> bool:
    from gateway.embedded import server as embedded

    async with embedded.serve(folder / "postgres", fast=True) as database:
        relays = {name: Relay(name, source, database, str(folder)) for name in RELAYS}
        try:
            took: dict[str, list[float]] = {name: [] for name in relays}
            for turn in range(rounds + 1):
                for name, relay in relays.items():
                    seconds = await asyncio.to_thread(relay.fetch, size)
                    if turn:  # the first warms both
                        took[name].append(seconds)
                        print(f"{name:5} {seconds:6.2f} s {size / 2**20 / seconds:6.0f} MiB/s", flush=True)
            for name, relay in relays.items():
                speed = size / 2**20 / median(took[name])
                print(f"{name:5} {speed:6.0f} MiB/s in the middle, {relay.peak():.0f} MiB at most")
        finally:
            for relay in relays.values():
                relay.stop()
    share = median(bare / ours for bare, ours in zip(took["bare"], took["ours"], strict=True))
    print(f"ours: {share:.2f} of the bare relay (target {TARGET})")
    return share >= TARGET


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("--mib", type=int, default=1024)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--as", dest="name", choices=RELAYS)
    asked.add_argument("--source")
    asked.add_argument("--database")
    asked.add_argument("--folder")
    given = asked.parse_args()
    if given.name:
        uvloop.run(RELAYS[given.name](given))
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "slide"
        with source.open("wb") as file:
            for _ in range(given.mib):
                file.write(os.urandom(2**20))
        listener = socket.create_server(("127.0.0.1", 0))
        server = os.fork()
        if server == 0:
            serve_slide(listener, source)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            good = uvloop.run(measure(url, given.mib << 20, given.rounds, Path(scratch)))
        finally:
            os.kill(server, 9)
            os.waitpid(server, 0)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
