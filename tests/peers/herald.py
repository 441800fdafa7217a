"""A small vendor that takes a study and calls back when it is done: its adapter, and the vendor itself.

`install` puts the adapter into a folder as a package that somebody else has installed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, SecretStr

from gateway.contract import (
    SILENCE,
    Call,
    Finished,
    Health,
    Heard,
    NeedsHuman,
    Order,
    Pending,
    Retryable,
    Route,
    Study,
    Ticket,
)


class HeraldOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    token: SecretStr


class Herald:
    Options: ClassVar[type[BaseModel]] = HeraldOptions

    def __init__(self, options: HeraldOptions, session: aiohttp.ClientSession, work: Path) -> None:
        self._url = options.url
        self._session = session

    async def submit(self, order: Order, study: Study) -> Ticket:
        assert order.callback is not None

        async def body() -> AsyncGenerator[bytes, None]:
            async for instance in study.instances():
                async for chunk in instance.chunks():
                    yield chunk

        where = {"X-Call": f"{order.callback.url}/done", "X-Token": order.callback.token}
        try:
            async with self._session.post(self._url, data=body(), headers=where) as answer:
                if answer.status != 200:
                    raise Retryable("the herald didn't take the study", uncertain=True)
        except aiohttp.ClientError:
            raise Retryable("the herald is away", uncertain=True) from None
        return Ticket(order.job_id)

    async def find(self, order: Order) -> Ticket | None:
        return Ticket(order.job_id) if order.callback and order.callback.used else None

    async def poll(self, ticket: Ticket, heard: Heard = SILENCE) -> Pending | Finished:
        if heard.since_told is None:
            return Pending(60.0)
        if "summary" not in heard.told:
            raise NeedsHuman("the herald told nothing that is known", "Ask its makers.")
        return Finished(str(heard.told["summary"]))

    async def cancel(self, ticket: Ticket) -> None:
        return None

    async def check(self) -> Health:
        return Health(True, "The herald needs no asking.")

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/done", _hear)


async def _hear(request: web.Request, call: Call) -> web.StreamResponse:
    said = await request.json()
    if not isinstance(said, dict):
        return call.refuse(422, "an object was expected")
    await call.tell(said)
    return web.json_response({})


def install(folder: Path) -> None:
    shutil.copy(__file__, folder / "herald.py")
    about = folder / "herald-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: herald\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gateway.adapters]\nherald = herald:Herald\n")


class HeraldVendor:
    """Reads a study, waits until it is told to, and calls back."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.called: list[tuple[str, str]] = []
        self.early: dict[str, Any] | None = None  # what it tells before it has answered
        self.arrived = asyncio.Event()

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        self.received.append(size)
        self.called.append((request.headers["X-Call"], request.headers["X-Token"]))
        self.arrived.set()
        if self.early is not None:
            assert await self.tell(self.early) == 200
        return web.Response()

    async def tell(self, said: dict[str, Any], *, token: str | None = None) -> int:
        url, own = self.called[-1]
        headers = {"Authorization": f"Bearer {token or own}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=said, headers=headers) as answer,
        ):
            return answer.status
