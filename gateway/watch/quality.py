"""Counts what becomes of jobs, day by day, and flags vendors whose results have shifted; and versions of them
that were accepted since stop being flagged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from gateway.jobs.store import Store
from gateway.jobs.store.tallies import Tally
from gateway.loops import Loop
from gateway.settings.sections import Settings
from gateway.watch.drift import RATES, Chart, Day, judge

KEPT = 400  # days that are looked at
_LOOK = 30.0
_HOUR = timedelta(hours=1)
VERDICTS = ("changed", "deleted")

Version = tuple[str, str]  # an application, and a version of its vendor


class QualityWatch:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    async def run(self) -> None:
        """Until it is cancelled."""
        await Loop("quality").run(self.look, pause=_LOOK)

    async def look(self) -> None:
        while await self._store.tally():
            pass
        if await self._store.take_round("drift", datetime.now(UTC) - _HOUR, 600.0):
            await self.judge()
            await self._store.finish_round("drift")

    async def judge(self) -> None:
        today = datetime.now(UTC).astimezone().date()
        days = days_of(await self._store.tallies(today - timedelta(days=KEPT)))
        for (name, version), each in days.items():
            found = self._settings.application(name)
            if found is not None:
                register = found[1].register_
                accepted = None if register is None else register.accepted
                charts = judge(each, accepted, today)
                await self._tell(name, found[1].display_name, version, charts)
        for name, application in self._settings.applications.items():
            if application.register_ is not None:
                await self._store.clear_alert(version_cause(name, application.register_.version))

    async def _tell(self, name: str, called: str, version: str, charts: Iterable[Chart]) -> None:
        for chart in charts:
            cause = f"drift.{name}.{version or 'unknown'}.{chart.rate}"
            if chart.shifted is None:
                await self._store.clear_alert(cause)
                continue
            way = "more" if chart.higher else "fewer"
            of = f" {version}" if version else ""
            sentence = f"{called}{of} has {way} {chart.rate} results than in its first weeks"
            if chart.rate in ("unsuitable", "failed"):
                sentence = f"{called}{of} has {way} {chart.rate} studies than in its first weeks"
            advice = "See what has changed: the vendor's version, the scanners, or whom it is asked about."
            await self._store.raise_alert(cause, sentence, advice)


def version_cause(application: str, version: str) -> str:
    return f"register.{application}.{version}"


def days_of(told: Iterable[Tally]) -> dict[Version, list[Day]]:
    """By application and version; days on which nothing ended aren't there."""
    counts: dict[Version, dict[date, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for each in told:
        if each.what not in VERDICTS:
            counts[each.application, each.version][each.day][each.what] = each.count
    return {key: [_day(day, said) for day, said in sorted(days.items())] for key, days in counts.items()}


def _day(day: date, said: dict[str, int]) -> Day:
    named = {rate: said.get(rate, 0) for rate in RATES if rate != "slow"}
    took = {int(what[5:]): count for what, count in said.items() if what.startswith("took:")}
    return Day(day, said.get("result", 0), took=took, **named)


def verdicts_of(told: Iterable[Tally]) -> dict[Version, dict[str, int]]:
    counts: dict[Version, dict[str, int]] = defaultdict(lambda: dict.fromkeys(VERDICTS, 0))
    for each in told:
        if each.what in VERDICTS:
            counts[each.application, each.version][each.what] += each.count
    return counts
