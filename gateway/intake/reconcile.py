"""/api/v1/reconcile: studies that an archive has and nobody has processed."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web
from pydantic import BaseModel

from gateway.intake.access import Access
from gateway.intake.openapi import Operation
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.watch.reconcile import start


class UnprocessedView(BaseModel):
    application: str
    archive: str
    study_instance_uid: str
    found_at: datetime


class UnprocessedList(BaseModel):
    """As each archive was last compared; the oldest first."""

    studies: list[UnprocessedView]


class Begun(BaseModel):
    """The ids of the jobs."""

    jobs: list[str]


_PATH = "/api/v1/reconcile"
OPERATIONS = (
    Operation("get", _PATH, "Studies that an archive has and nobody has processed", UnprocessedList),
    Operation("post", f"{_PATH}/start", "Begin them, as if they had just arrived", Begun),
)


class ReconcileDoor:
    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        self._settings = settings
        self._store = store
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [web.get(_PATH, self._list), web.post(f"{_PATH}/start", self._start)]

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        studies = [
            UnprocessedView(
                application=each.application,
                archive=each.archive,
                study_instance_uid=each.study_instance_uid,
                found_at=each.found_at.astimezone(UTC),
            )
            for each in await self._store.unprocessed()
        ]
        return _answer(UnprocessedList(studies=studies))

    async def _start(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        return _answer(Begun(jobs=await start(self._settings, self._store, who)))


def _answer(shown: BaseModel) -> web.Response:
    return web.Response(text=shown.model_dump_json(), content_type="application/json")
