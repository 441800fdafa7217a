"""/api/v1/audit: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict

from gateway.intake.access import Access
from gateway.intake.openapi import AUDIT, Operation
from gateway.intake.shapes import PAGED, Line, limit_of, moment, place_of, read
from gateway.intake.views import ActList, view_of_act
from gateway.jobs.store import Store
from gateway.jobs.store.acts import ActFilter

OPERATIONS = (Operation("get", "/api/v1/audit", "Who did what, the newest first", ActList, AUDIT),)


class AuditQuery(BaseModel):
    """Which acts are meant; of several values, any."""

    model_config = ConfigDict(extra="forbid")

    who: list[Line] = []
    what: list[Line] = []
    job: UUID | None = None
    since: Annotated[datetime | None, BeforeValidator(moment)] = None


class AuditDoor:
    def __init__(self, store: Store, access: Access) -> None:
        self._store = store
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/audit", self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "operator")
        asked: dict[str, Any] = {name: request.query.getall(name) for name in request.query}
        limit = limit_of(asked.pop("limit", ["50"])[0])
        before = place_of(asked.pop("cursor", [None])[0])
        asked |= {name: asked[name][0] for name in ("job", "since") if name in asked}
        query = read(AuditQuery, asked, PAGED)
        wanted = ActFilter(query.who, query.what, query.job, query.since)
        acts = await self._store.find_acts(wanted, limit=limit + 1, before=before)
        more = str(acts[limit - 1].id) if len(acts) > limit else None
        listed = ActList(acts=[view_of_act(act) for act in acts[:limit]], next_cursor=more)
        return web.Response(text=listed.model_dump_json(), content_type="application/json")
