"""On the page of vendors' quality: how far an application's vendor and those tried beside it agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import sqrt

from gateway.console import charts, wording
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.watch.concordance import ANY, Concordance, Fourfold, compare
from gateway.watch.drift import Point
from gateway.watch.quality import KEPT

_MOST = 2000  # studies of an application that are looked at, the newest
_APART = 10  # days between two points of a line
_TOLD = 30  # periods in numbers
_SIGMAS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """Of one finding."""

    finding: str
    counts: Fourfold
    agreement: str
    kappa: str
    interval: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """`chart`: the agreement about any finding over time, and `told` in numbers, the latest first; the time
    that isn't over, so far. `newest`: there are more studies than are looked at here."""

    name: str
    maker: str
    compared: Concordance
    usual: str
    lines: Sequence[Line]
    chart: charts.Course | None
    told: Sequence[tuple[date, date, bool, int, str]]
    own_failed: str
    shadow_failed: str
    newest: bool


async def show_shadows(settings: Settings, store: Store) -> dict[str, list[Shadow]]:
    """By application, of those that have any."""
    since = datetime.now(UTC) - timedelta(days=KEPT)
    return {
        name: [_tell(settings, each, len(pairs) == _MOST) for each in compare(pairs)]
        for name, application in settings.applications.items()
        if application.shadow
        for pairs in (await store.pairs(name, since, _MOST),)
    }


def _tell(settings: Settings, compared: Concordance, newest: bool) -> Shadow:
    usual = compared.findings[ANY].agreement or 0.0
    other, today = settings.applications.get(compared.shadow), datetime.now(UTC).astimezone().date()
    seen = [period for period in compared.periods if period.findings[ANY].studies]
    points = [_point(period.first, period.findings[ANY], usual) for period in seen]
    return Shadow(
        compared.shadow,
        wording.name_peer(settings, f"adapters.{other.adapter if other else compared.shadow}"),
        compared,
        charts.percent(usual),
        [_line(name, counts) for name, counts in compared.findings.items()],
        charts.draw_course(points, usual, None, apart=_APART, so_far=seen[-1].is_so_far(today))
        if seen
        else None,
        [
            (
                *(period.first, period.until(today), period.is_so_far(today)),
                *(counts.studies, charts.percent(counts.agreement or 0.0)),
            )
            for period in reversed(compared.periods[-_TOLD:])
            for counts in (period.findings[ANY],)
        ],
        _failed(compared.own_ends),
        _failed(compared.shadow_ends),
        newest,
    )


def _line(finding: str, counts: Fourfold) -> Line:
    agreement, beyond = charts.percent(counts.agreement or 0.0), counts.kappa
    if beyond is None:
        return Line(finding, counts, agreement, "–", "both say the same of all")
    interval = f"{beyond.low:.2f} to {beyond.high:.2f}" if beyond.tells else "–"
    return Line(finding, counts, agreement, f"{beyond.value:.2f}", interval)


def _point(day: date, counts: Fourfold, usual: float) -> Point:
    wide = _SIGMAS * sqrt(usual * (1 - usual) / counts.studies)
    limits = max(0.0, usual - wide), min(1.0, usual + wide)
    return Point(day, counts.both + counts.neither, counts.studies, *limits)


def _failed(ends: Mapping[str, int]) -> str:
    failed = [f"{count} {end}" for end, count in sorted(ends.items()) if end != "result"]
    return ", ".join(failed) or "none"
