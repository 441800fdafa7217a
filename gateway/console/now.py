"""Now: what is broken, for how many, and the button that mends it; what is under way, how long it takes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from aiohttp import web

from gateway.console import charts
from gateway.console.causes import Cause, tell_causes
from gateway.console.looking import read_look
from gateway.console.pages import Desk, Guard
from gateway.intake.visits import Visitor
from gateway.jobs.store.overview import Hour, UnderWay
from gateway.settings.sections import Settings

_DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Row:
    """An application's line."""

    name: str
    display_name: str
    waiting: int
    working: int
    held: int
    done_today: int
    failed_today: int
    median: float | None
    slowest: float | None
    oldest: datetime | None
    chart: charts.Bars

    @property
    def query(self) -> str:
        return urlencode({"application": self.name})


@dataclass(frozen=True, slots=True)
class Ground:
    """What all of it stands on. `database`: seconds that it takes to answer."""

    database: float
    disk_free: int
    disk_whole: int
    disk_low: bool


class Now:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/", guard("viewer", self._show))]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        store, settings = self._desk.store, self._desk.settings
        now = datetime.now(UTC)
        began = time.perf_counter()
        await store.ping()
        answered = time.perf_counter() - began
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        causes, replicas, under_way, hours = await asyncio.gather(
            tell_causes(settings, store),
            store.replicas(),
            store.tell_under_way(),
            store.tell_hours(list(settings.applications), now - _DAY, midnight),
        )
        departments = {
            name: [
                _row(each, application.display_name, under_way, hours, now)
                for each, application in department.applications.items()
            ]
            for name, department in settings.departments.items()
        }
        ground = _look_at_ground(settings, answered)
        oldest = min((each.oldest for each in under_way if each.doing == "waiting"), default=None)
        return self._desk.show(
            visitor,
            "now.html",
            "now",
            causes=causes,
            departments=departments,
            ground=ground,
            oldest=oldest,
            replicas=replicas,
            midnight=midnight.isoformat(),
            failed_today=sum(row.failed_today for rows in departments.values() for row in rows),
            looked=await read_look(self._desk, request),
            address=request.path_qs,
            all_well=not causes and not ground.disk_low,
            broken=_how_bad(causes),
        )


def _how_bad(causes: Sequence[Cause]) -> int:
    return sum(each.jobs for each in causes)


def _row(
    name: str, display_name: str, under_way: Sequence[UnderWay], hours: Sequence[Hour], now: datetime
) -> Row:
    mine = [each for each in under_way if each.application == name]
    whole = next((each for each in hours if each.application == name and each.hour is None), None)
    by_hour = {each.hour: each for each in hours if each.application == name and each.hour is not None}
    last = now.replace(minute=0, second=0, microsecond=0)
    slots = [last - timedelta(hours=back) for back in range(23, -1, -1)]
    counted = {doing: sum(each.jobs for each in mine if each.doing == doing) for doing in _DOING}
    return Row(
        name,
        display_name,
        counted["waiting"],
        counted["working"],
        counted[None],
        whole.done_today if whole else 0,
        whole.failed_today if whole else 0,
        whole.median if whole else None,
        whole.slowest if whole else None,
        min((each.oldest for each in mine if each.doing == "waiting"), default=None),
        charts.draw_bars([(slot, by_hour.get(slot)) for slot in slots]),
    )


_DOING = ("waiting", "working", None)


def _look_at_ground(settings: Settings, answered: float) -> Ground:
    try:
        disk = os.statvfs(settings.data_dir)
    except OSError:  # this process may have no such folder: then it puts nothing there
        return Ground(answered, 0, 0, disk_low=False)
    free = disk.f_bavail * disk.f_frsize
    return Ground(answered, free, disk.f_blocks * disk.f_frsize, free < settings.least_free)
