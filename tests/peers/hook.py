"""A webhook: keeps what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Hook:
    """`refusing`: with this status, instead of listening. What it answers then names a patient."""

    url: str = ""
    refusing: int | None = None
    refused: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    async def take(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("Authorization"))
        if self.refusing is not None:
            self.refused += 1
            return web.Response(status=self.refusing, text="Doe^Jane")
        self.told.append(await request.json())
        return web.Response()

    def kinds(self, cause: str) -> list[str]:
        return [each["kind"] for each in self.told if each["cause"] == cause]

    def sentence(self, cause: str) -> str:
        return next(str(each["sentence"]) for each in self.told if each["cause"] == cause)


@asynccontextmanager
async def open_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/hook", hook.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield hook
    finally:
        await runner.cleanup()
