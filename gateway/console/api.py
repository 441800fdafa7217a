"""The API's own page: how other systems, and those who write them, speak with the gateway."""

from __future__ import annotations

from aiohttp import web

from gateway.console.pages import Desk, Guard
from gateway.console.reference import Reference
from gateway.intake.rest import describe_api
from gateway.intake.visits import Visitor


class Api:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/api/v1/", guard("viewer", self._show))]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        base = (self._desk.settings.public_url or f"{request.scheme}://{request.host}").rstrip("/")
        return self._desk.show(visitor, "api.html", "api", reference=Reference(describe_api(), base))
