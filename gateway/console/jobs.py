"""Jobs: a list by any filter, whose address can be passed on, and what can be done to all of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from gateway.console.filters import Asked, read_filter, read_place, write_place
from gateway.console.pages import Desk, Guard
from gateway.intake.visits import Visitor
from gateway.jobs.records import Job
from gateway.jobs.states import FINAL, State
from gateway.settings.sections import Settings

_PAGE = 50


@dataclass(frozen=True, slots=True)
class Line:
    """`matter`: what is wrong with it, or what it waits for; `took`: until it ended, or now."""

    job: Job
    application: str
    matter: str
    advice: str
    waits: bool
    ended: datetime | None


class Jobs:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/jobs", guard("viewer", self._show))]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        store, settings = self._desk.store, self._desk.settings
        asked = read_filter(request.query.items(), ("after", "told"))
        after = read_place(request.query.get("after", ""))
        found, counted = await asyncio.gather(
            store.find(asked.filter, limit=_PAGE + 1, after=after), self._count(asked)
        )
        page = found[:_PAGE]
        more = write_place(page[-1]) if len(found) > _PAGE else ""
        if counted is None and after is None and not more:
            counted = len(page)
        return self._desk.show(
            visitor,
            "jobs.html",
            "jobs",
            asked=asked,
            chips=asked.chips(settings),
            lines=await draw_lines(self._desk, visitor, page),
            counted=counted,
            after=request.query.get("after", ""),
            more=more,
            choices=_choices(settings),
            told=read_told(request),
            address=request.path_qs,
        )

    async def _count(self, asked: Asked) -> int | None:
        """Of living jobs alone: counting all that ever ended takes too long."""
        return await self._desk.store.count(asked.filter) if asked.is_of_the_living else None


async def draw_lines(desk: Desk, visitor: Visitor, found: Sequence[Job]) -> list[Line]:
    """With what operators alone may know: who cancelled what."""
    ended = [job.id for job in found if job.state == State.CANCELLED] if visitor.may("operator") else []
    by = await desk.store.who_cancelled(ended) if ended else {}
    return [draw_line(desk.settings, job, by.get(job.id, "")) for job in found]


def draw_line(settings: Settings, job: Job, cancelled_by: str = "") -> Line:
    known = settings.applications.get(job.application)
    waits = job.waits_why is not None and job.lease_holder is None and job.state not in FINAL
    matter = (job.waits_why or "") if waits else (job.error_message or "")
    if job.state == State.CANCELLED and cancelled_by:
        matter = f"cancelled {'in Sectra' if cancelled_by == 'sectra' else f'by {cancelled_by}'}"
    return Line(
        job,
        job.application if known is None else known.display_name,
        matter,
        "" if waits else (job.error_advice or ""),
        waits,
        job.updated_at if job.state in FINAL else None,
    )


def read_told(request: web.Request) -> tuple[str, int] | None:
    """What was just done, and to how many."""
    act, _, number = request.query.get("told", "").partition("-")
    if act not in _TOLD or not re.fullmatch(r"\d{1,8}", number):
        return None
    return act, int(number)


_TOLD = ("resume", "retry", "cancel", "interesting")


def _choices(settings: Settings) -> dict[str, list[tuple[str, str]]]:
    return {
        "state": [(each.value, each.value) for each in sorted(State, key=lambda each: each in FINAL)],
        "doing": [("waiting", "waiting"), ("working", "at work")],
        "department": [(name, name) for name in settings.departments],
        "application": [(name, each.display_name) for name, each in settings.applications.items()],
        "adapter": [(name, name) for name in settings.adapters],
    }
