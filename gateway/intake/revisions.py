"""/api/v1/revisions: which configuration was in force, and since when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from gateway.intake.access import Access
from gateway.intake.openapi import PAGES, Operation
from gateway.intake.problems import Problem
from gateway.intake.shapes import limit_of, place_of
from gateway.jobs.store import Store
from gateway.jobs.store.revisions import Revision
from gateway.nearest import did_you_mean

_ASKED = ("cursor", "limit")


class RevisionView(BaseModel):
    """`revision`: what jobs name. `text`: the configuration, its secrets masked. `refused`: why it isn't in
    force, where it was refused."""

    id: int
    at: datetime
    who: str
    why: str
    revision: str
    text: str
    refused: list[str]


class RevisionList(BaseModel):
    """`in_force`: the youngest that wasn't refused."""

    in_force: RevisionView | None
    revisions: list[RevisionView]
    next_cursor: str | None


OPERATIONS = (
    Operation(
        "get",
        "/api/v1/revisions",
        "Which configuration is in force and since when, and those before it, the newest first",
        RevisionList,
        PAGES,
    ),
)


class RevisionsDoor:
    def __init__(self, store: Store, access: Access) -> None:
        self._store = store
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/revisions", self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "operator")
        asked: dict[str, Any] = dict(request.query)
        limit = limit_of(asked.pop("limit", "50"))
        before = place_of(asked.pop("cursor", None))
        if asked:
            name = min(asked)
            meant = did_you_mean(name, _ASKED)
            raise Problem(422, f"{name}: not known here; allowed: {', '.join(_ASKED)}{meant}")
        found = await self._store.revisions(limit=limit + 1, before=before)
        in_force = await self._store.revision_in_force()
        listed = RevisionList(
            in_force=None if in_force is None else _view(in_force),
            revisions=[_view(each) for each in found[:limit]],
            next_cursor=str(found[limit - 1].id) if len(found) > limit else None,
        )
        return web.Response(text=listed.model_dump_json(), content_type="application/json")


def _view(revision: Revision) -> RevisionView:
    return RevisionView(
        id=revision.id,
        at=revision.at.astimezone(UTC),
        who=revision.who,
        why=revision.why,
        revision=revision.revision,
        text=revision.text,
        refused=revision.refused,
    )
