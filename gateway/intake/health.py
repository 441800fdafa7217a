"""What systemd, Kubernetes and Prometheus ask."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.intake.problems import Problem
from gateway.jobs.schema import newest, revision_of
from gateway.jobs.store import DatabaseError, Store
from gateway.watch import metrics


class HealthDoor:
    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self._migrated = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._alive),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
        ]

    async def _alive(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        try:
            await asyncio.wait_for(self._store.ping(), 5)
            if not self._migrated:
                self._migrated = await asyncio.to_thread(revision_of, self._url) == newest()
        except (DatabaseError, OSError, TimeoutError):
            raise Problem(503, "the database doesn't answer; check that it runs and can be reached") from None
        if not self._migrated:
            raise Problem(503, "the database isn't migrated to this release: run gateway migrate")
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        metrics.living.clear()
        for (application, state), count in (await self._store.count_by_state()).items():
            metrics.living.labels(application, state).set(count)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
