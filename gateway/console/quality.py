"""Vendors' quality: what becomes of studies at each vendor, by version, beside what was usual in its first
weeks; which version was accepted; and what users changed or deleted. Of one application day by day; of the
others in sums, and what was flagged when it was last looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from aiohttp import web

from gateway.console import charts, wording
from gateway.console.pages import Desk, Guard
from gateway.console.shadows import Shadow, show_shadows
from gateway.intake.problems import Problem
from gateway.intake.quality import RateView, VersionView, view_quality
from gateway.intake.visits import Visitor
from gateway.jobs.store.overview import Standing
from gateway.jobs.store.tallies import Total
from gateway.settings.sections import Settings
from gateway.settings.watching import Register
from gateway.watch.drift import BASELINE, LEAST, Point
from gateway.watch.quality import KEPT

_SHOWN = 120  # days in a chart
_TOLD = 30  # days in numbers
_MEANT = {
    "positive": "something was found",
    "empty": "nothing came back that could be shown",
    "slow": "later than nine of ten in the first weeks",
    "unsuitable": "the vendor can’t take such a study",
    "failed": "no result",
}


@dataclass(frozen=True, slots=True)
class Rate:
    name: str
    meant: str
    usual: str
    lately: str
    shifted: date | None
    direction: str
    chart: charts.Course


@dataclass(frozen=True, slots=True)
class Version:
    """`standing`: whether the hospital accepted it. `flags`: what has shifted, in words. `view`, `rates`,
    `told`: day by day, the last day first, and whether that isn't over, if it is shown so."""

    version: str
    standing: str
    word: str
    first_day: date
    last_day: date
    results: int
    counts: Sequence[tuple[str, int, str]]
    flags: Sequence[str]
    view: VersionView | None = None
    rates: Sequence[Rate] = ()
    told: Sequence[tuple[date, bool, int, Sequence[str]]] = ()


@dataclass(frozen=True, slots=True)
class Application:
    name: str
    display_name: str
    maker: str
    register: Register | None
    versions: Sequence[Version]
    shadows: Sequence[Shadow] = ()

    @property
    def shifts(self) -> int:
        return sum(len(version.flags) for version in self.versions)

    @property
    def results(self) -> int:
        return sum(version.results for version in self.versions)


class Quality:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/quality", guard("viewer", self._show))]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        settings, store = self._desk.settings, self._desk.store
        chosen = request.query.get("application", "")
        if chosen and chosen not in settings.applications:
            raise Problem(404, "there is no application of this name in the configuration")
        totals = await store.totals(datetime.now(UTC).date() - timedelta(days=KEPT))
        applications = _tell_all(settings, totals, _flags(await store.standing_alerts()))
        shadows = await show_shadows(settings, store)
        applications = [replace(each, shadows=shadows.get(each.name, ())) for each in applications]
        if not chosen and applications:
            chosen = applications[0].name
        if chosen:
            [judged] = (await view_quality(settings, store, [chosen])).applications
            views = {each.version: each for each in judged.versions}
            applications = [_closer(each, views) if each.name == chosen else each for each in applications]
        return self._desk.show(
            visitor,
            "quality.html",
            "quality",
            applications=applications,
            chosen=chosen,
            shifts=sum(each.shifts for each in applications),
            judged=any(version.rates for each in applications for version in each.versions),
            counted=any(each.versions for each in applications),
            baseline=BASELINE.days,
            least=LEAST,
        )


def _tell_all(
    settings: Settings, totals: Sequence[Total], flags: Mapping[tuple[str, str], Sequence[str]]
) -> list[Application]:
    """Where something has shifted comes first, then where most is counted."""
    by_version: dict[tuple[str, str], list[Total]] = defaultdict(list)
    for total in totals:
        by_version[total.application, total.version].append(total)
    told = [
        Application(
            name,
            application.display_name,
            wording.name_peer(settings, f"adapters.{application.adapter}"),
            application.register_,
            _latest_first(
                _sum_up(version, each, application.register_, flags.get((named, version), ()))
                for (named, version), each in by_version.items()
                if named == name
            ),
        )
        for name, application in settings.applications.items()
    ]
    return sorted(told, key=lambda each: (-each.shifts, -each.results))


def _flags(standing: Sequence[Standing]) -> dict[tuple[str, str], list[str]]:
    """By application and version."""
    found = defaultdict(list)
    for alert in standing:
        kind, _, rest = alert.cause.partition(".")
        if kind == "drift":
            name, _, rest = rest.partition(".")
            version, _, rate = rest.rpartition(".")
            found[name, "" if version == "unknown" else version].append(f"{rate} since {alert.since:%d %b}")
    return found


def _latest_first(versions: Iterable[Version]) -> list[Version]:
    """Where nothing tells a version, that last."""
    return sorted(
        versions, key=lambda each: (bool(each.version), each.last_day, each.first_day), reverse=True
    )


def _sum_up(
    version: str, totals: Sequence[Total], register: Register | None, flags: Sequence[str]
) -> Version:
    counts = {total.what: total.count for total in totals}
    results = counts.get("result", 0)
    ended = results + counts.get("unsuitable", 0) + counts.get("failed", 0)
    shares = [
        (name, counts.get(name, 0), charts.share(counts.get(name, 0), of))
        for name, of in (
            ("positive", results),
            ("empty", results),
            ("unsuitable", ended),
            ("failed", ended),
            ("changed", results),
            ("deleted", results),
        )
    ]
    return Version(
        version,
        *_standing(version, register),
        min(total.first_day for total in totals),
        max(total.last_day for total in totals),
        results,
        shares,
        flags,
    )


def _standing(version: str, register: Register | None) -> tuple[str, str]:
    """A sign, and its word."""
    if not version:
        return "received", ""
    if register is None or not register.version:
        return "received", "nobody has accepted a version"
    return ("well", "accepted") if version == register.version else ("held", "not accepted")


def _closer(application: Application, views: Mapping[str, VersionView]) -> Application:
    """Judged now, day by day."""
    return replace(
        application,
        versions=[
            _judged(version, view) if (view := views.get(version.version)) is not None else version
            for version in application.versions
        ],
    )


def _judged(version: Version, view: VersionView) -> Version:
    days = [
        (
            points[0].day,
            points[0].so_far,
            points[-1].of,
            [charts.share(each.count, each.of) for each in points],
        )
        for points in zip(*(rate.points[-_TOLD:] for rate in view.rates), strict=True)
    ]
    rates = [_rate(each) for each in view.rates]
    flags = [f"{each.name}: {each.direction} since {each.shifted:%d %b}" for each in rates if each.shifted]
    return replace(version, view=view, rates=rates, told=days[::-1], flags=flags)


def _rate(seen: RateView) -> Rate:
    last = [each for each in seen.points if not each.so_far][-7:]
    lately = charts.share(sum(each.count for each in last), sum(each.of for each in last))
    points = [Point(each.day, each.count, each.of, each.lower, each.upper) for each in seen.points]
    return Rate(
        seen.rate,
        _MEANT[seen.rate],
        charts.percent(seen.usual),
        lately,
        seen.shifted,
        {"higher": "more", "lower": "fewer"}.get(seen.direction or "", ""),
        charts.draw_course(points[-_SHOWN:], seen.usual, seen.shifted, so_far=seen.points[-1].so_far),
    )
