"""Search: any identifier that somebody on the telephone may have. One hit opens the job."""

from __future__ import annotations

import asyncio
import re
from uuid import UUID

from aiohttp import web

from gateway.console.jobs import draw_lines
from gateway.console.pages import FORM, Desk, Guard, to
from gateway.intake.visits import Visitor
from gateway.jobs.records import Job
from gateway.jobs.states import State

_LONGEST = 200
_LEAST_DIGITS = 4


class Search:
    """By a form that is posted: what is looked for may be a patient's, and stays out of addresses."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/search", guard("viewer", self._begin)),
            web.post("/search", guard("viewer", self._find)),
        ]

    async def _begin(self, _: web.Request, visitor: Visitor) -> web.Response:
        return self._desk.show(visitor, "search.html", "jobs", wanted="", lines=[])

    async def _find(self, request: web.Request, visitor: Visitor) -> web.Response:
        wanted = request[FORM].get("for", "").strip()[:_LONGEST].replace("\0", "")
        found = await self._look(wanted) if wanted else []
        if len(found) == 1:
            return to(f"/jobs/{found[0].id}")
        lines = await draw_lines(self._desk, visitor, found)
        unread = 0 if lines else await self._count_unread()
        return self._desk.show(visitor, "search.html", "jobs", wanted=wanted, lines=lines, unread=unread)

    async def _count_unread(self) -> int:
        """Of those by their slides nobody knows the study yet, as Sectra hasn't told it."""
        early = State.RECEIVED.value, State.LOCATING.value
        return sum(crowd.jobs for crowd in await self._desk.store.crowds() if crowd.state in early)

    async def _look(self, wanted: str) -> list[Job]:
        store = self._desk.store
        digits = wanted.replace("-", "")
        begun: list[UUID] = []
        if re.fullmatch(f"[0-9a-fA-F]{{{_LEAST_DIGITS},32}}", digits):
            begun = await store.find_by_prefix(digits)
        named, of_ids = await asyncio.gather(
            store.search(wanted), asyncio.gather(*(store.glance(job_id) for job_id in begun))
        )
        known = {job.id: job for job in (*named, *(job for job in of_ids if job is not None))}
        return list(known.values())
