"""What systemd, Kubernetes and Prometheus ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aiohttp import web

from gateway import loops
from gateway.intake.problems import Problem
from gateway.jobs.schema import newest, revision_of
from gateway.jobs.store import DatabaseError, Store
from gateway.watch.figures import Figures, expose

_WORK = ("engine", "incoming studies")  # a loop that only lacks some peer is no reason
_PATIENCE = timedelta(minutes=10)
_ANSWERS_WITHIN = 2.0  # whoever asks us waits no longer; most give up soon after
_GIVEN_UP = 60.0  # an ask that no connection's own limits have ended


class InForce:
    """Which configuration is, and whether another was refused since."""

    def __init__(self) -> None:
        self.revision = ""
        self.refused: tuple[str, ...] = ()

    def take(self, revision: str) -> None:
        self.revision, self.refused = revision, ()

    def refuse(self, problems: Sequence[str]) -> None:
        self.refused = tuple(problems)

    def problems(self) -> Sequence[str]:
        return self.refused

    def told(self) -> dict[str, str]:
        if not self.refused:
            return {}
        return {"configuration": "a changed one was refused; gateway config show tells why"}


class HealthDoor:
    def __init__(
        self,
        store: Store,
        url: str,
        figures: Figures,
        in_force: InForce | None = None,
        patience: timedelta = _PATIENCE,
    ) -> None:
        self._store = store
        self._url = url
        self._figures = figures
        self._in_force = in_force or InForce()
        self._patience = patience
        self._migrated = False
        self._asking: asyncio.Task[bool] | None = None
        self._late = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._alive),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
        ]

    async def _alive(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Whether this process should go on: not if work stands still for long, and the database is well."""
        for loop in loops.failing() if self._figures.database_up else ():
            if loop.name in _WORK and loop.since and datetime.now(UTC) - loop.since > self._patience:
                raise Problem(503, f"work has stood still here since {loop.since:%FT%TZ}: begin anew")
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        if not await self._answers():
            raise Problem(503, "the database doesn't answer; check that it runs and can be reached")
        if not self._migrated:
            raise Problem(503, "the database isn't migrated to this release: run gateway migrate")
        # Others may still do what a loop of this process can't: work goes on being taken in.
        failing = [{"loop": loop.name, "since": f"{loop.since:%FT%TZ}"} for loop in loops.failing()]
        told = {"failing": failing} if failing else {}
        return web.json_response({"status": "ready", **told, **self._in_force.told()})

    async def _answers(self) -> bool:
        """One ask for all who want to know, and never cancelled by them: each would take the pool's next
        connection. While it is late already, nobody waits for it again."""
        if self._asking is None or self._asking.done():
            self._asking, self._late = asyncio.create_task(self._ask()), False
        asking = self._asking
        await asyncio.wait((asking,), timeout=0 if self._late else _ANSWERS_WITHIN)
        if not asking.done():
            self._late = True
            return False
        return asking.result()

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_GIVEN_UP):
                await self._store.ping()
                if not self._migrated:
                    self._migrated = await revision_of(self._url) == newest()
        except (DatabaseError, OSError, TimeoutError):
            return False
        return True

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        told, kind = expose(self._figures)
        return web.Response(body=told, headers={"Content-Type": kind})
