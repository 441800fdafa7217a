"""/api/v1/quality: what becomes of studies at each vendor, by application and version, over time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

from aiohttp import web
from pydantic import BaseModel, Field

from gateway.intake.access import Access
from gateway.intake.openapi import Operation
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.settings.watching import Register
from gateway.watch.drift import Chart, Day, is_learning, judge, time_within
from gateway.watch.quality import KEPT, days_of, verdicts_of


class PointView(BaseModel):
    """`count` of `of`; a day's rate lies nearly always between `lower` and `upper`. `so_far`: the day isn't
    over, and isn't judged."""

    day: date
    count: int
    of: int
    lower: float
    upper: float
    so_far: bool


class RateView(BaseModel):
    """`usual`: in the first weeks. `shifted`: since when it isn't any more."""

    rate: str
    usual: float
    shifted: date | None
    direction: str | None
    points: list[PointView]


class VersionView(BaseModel):
    """One version of the vendor; empty where it doesn't tell. While it is `learning` there are no rates. Half
    of its results came within `median_seconds`, 95 of 100 within `slowest_seconds`."""

    version: str
    first_day: date
    last_day: date
    results: int
    positive: int
    empty: int
    unsuitable: int
    failed: int
    median_seconds: float | None
    slowest_seconds: float | None
    changed: int
    deleted: int
    learning: bool
    rates: list[RateView]


class RegisterView(BaseModel):
    owner: str
    purpose: str
    version: str
    accepted: date | None
    strict: bool


class ApplicationQuality(BaseModel):
    application: str
    register_: RegisterView | None = Field(serialization_alias="register")
    versions: list[VersionView]


class Quality(BaseModel):
    applications: list[ApplicationQuality]


OPERATIONS = (Operation("get", "/api/v1/quality", "Rates, shifts and verdicts by vendor's version", Quality),)


class QualityDoor:
    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        self._settings = settings
        self._store = store
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/quality", self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        shown = await view_quality(self._settings, self._store)
        return web.Response(text=shown.model_dump_json(by_alias=True), content_type="application/json")


async def view_quality(settings: Settings, store: Store, only: Collection[str] = ()) -> Quality:
    """`only`: of these applications; none named: of all."""
    told = await store.tallies(datetime.now(UTC).date() - timedelta(days=KEPT), only)
    days, verdicts = days_of(told), verdicts_of(told)
    today = datetime.now(UTC).astimezone().date()
    shown = []
    for name, application in settings.applications.items():
        if only and name not in only:
            continue
        register = application.register_
        accepted = None if register is None else register.accepted
        versions = [
            _version(version, each, verdicts.get((named, version), {}), accepted, today)
            for (named, version), each in days.items()
            if named == name
        ]
        shown.append(ApplicationQuality(application=name, register_=_register(register), versions=versions))
    return Quality(applications=shown)


def _register(register: Register | None) -> RegisterView | None:
    return None if register is None else RegisterView(**register.model_dump())


def _version(
    version: str, days: list[Day], verdicts: dict[str, int], accepted: date | None, today: date
) -> VersionView:
    return VersionView(
        version=version,
        first_day=days[0].day,
        last_day=days[-1].day,
        results=sum(day.results for day in days),
        positive=sum(day.positive for day in days),
        empty=sum(day.empty for day in days),
        unsuitable=sum(day.unsuitable for day in days),
        failed=sum(day.failed for day in days),
        median_seconds=time_within(days, 0.5),
        slowest_seconds=time_within(days, 0.95),
        changed=verdicts.get("changed", 0),
        deleted=verdicts.get("deleted", 0),
        learning=is_learning(days, accepted, today),
        rates=[_rate(chart, today) for chart in judge(days, accepted, today)],
    )


def _rate(chart: Chart, today: date) -> RateView:
    direction = None if chart.shifted is None else "higher" if chart.higher else "lower"
    points = [PointView(**asdict(each), so_far=each.day == today) for each in chart.points]
    return RateView(
        rate=chart.rate, usual=chart.usual, shifted=chart.shifted, direction=direction, points=points
    )
