"""Starts a simulated server: inside a program that goes on, or as the whole of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from gateway.simulate import archive, ia_app, milvue, sectra
from gateway.simulate.front import FRONT

Kind = Literal["sectra", "archive", "milvue", "ia-app"]
KINDS: dict[Kind, Callable[[], web.Application]] = {
    "sectra": sectra.make_app,
    "archive": archive.make_app,
    "milvue": milvue.make_app,
    "ia-app": ia_app.make_app,
}


async def serve(
    app: web.Application, host: str = "127.0.0.1", port: int = 0, url: str | None = None
) -> tuple[web.AppRunner, int]:
    """Listening when it returns. The caller ends it with `runner.cleanup()`. `url`: what it tells others of
    where it is, if they reach it through something else."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, read_bufsize=2**20)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    port = runner.addresses[0][1]
    app[FRONT].url = url or f"http://{host}:{port}"
    return runner, port


async def run(kind: Kind, port: int, host: str = "127.0.0.1") -> None:
    """Serves until cancelled."""
    runner, _ = await serve(KINDS[kind](), host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
