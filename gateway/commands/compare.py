"""gateway compare: how far an application's vendor and those that are tried beside it agree."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.commands.jobs import here
from gateway.commands.opening import FAILED, WRONG_USE, complain, go, read_settings, store_of
from gateway.jobs.store.shadows import Pair
from gateway.nearest import no_such
from gateway.settings.sections import Settings
from gateway.watch.concordance import ANY, Concordance, Fourfold, Period, compare
from gateway.watch.proportions import Estimate

_MOST_DIFFERING = 10
_IN_COLUMNS = 3  # findings over time; all of them are in --json


def show(config: Path | None, application: str, since: datetime | None, as_json: bool) -> int:
    if since is None:
        complain("say from when on: --since 2026-01-31")
        return WRONG_USE
    settings = read_settings(config)
    if application not in settings.applications:
        complain(no_such("application", application, settings.applications))
        return FAILED
    return go(_show(settings, application, since, as_json))


async def _show(settings: Settings, application: str, since: datetime, as_json: bool) -> int:
    async with store_of(settings, "to compare results") as store:
        compared = compare(await store.pairs(application, since))
    if as_json:
        told = [_plain(each) for each in compared]
        print(json.dumps({"application": application, "since": since.isoformat(), "shadows": told}))
        return 0
    if not compared:
        configured = ", ".join(settings.applications[application].shadow) or "none is configured"
        print(f"no study of {application} went to a shadow since {here(since)}; its shadows: {configured}")
    for each in compared:
        _write(application, since, each)
    return 0


def _write(application: str, since: datetime, compared: Concordance) -> None:
    console = Console(width=None if os.isatty(1) else 110, highlight=False)
    console.print(
        f"{application} and its shadow {compared.shadow} since {here(since)}: {compared.studies} studies,"
        f" {compared.compared} with a result of both, {compared.under_way} under way",
        soft_wrap=True,
    )
    console.print(f"  half within   {_seconds(compared.own_seconds)} and {_seconds(compared.shadow_seconds)}")
    console.print(f"  no result     {_failures(compared.own_ends)} and {_failures(compared.shadow_ends)}")
    if not compared.compared:
        return
    console.print(_tabulate(compared.findings))
    if len(compared.periods) > 1:
        console.print(_over_time(compared))
    for pair in compared.differing[:_MOST_DIFFERING]:
        console.print(f"  differ: {pair.of}  {_said(pair.own_found)} and {_said(pair.found)}", soft_wrap=True)
    left = len(compared.differing) - _MOST_DIFFERING
    if left > 0:
        console.print(f"  and {left} more, which --json names")


def _tabulate(findings: Mapping[str, Fourfold]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("finding", overflow="fold")
    for title in ("both", "own", "shadow", "neither", "agree", "kappa", "95 %"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, counts in findings.items():
        beyond = counts.kappa
        of_chance = ("–", "") if beyond is None else (f"{beyond.value:.2f}", _interval(beyond))
        four = (counts.both, counts.own, counts.shadow, counts.neither)
        table.add_row(name, *map(str, four), _share(counts.agreement), *of_chance)
    return table


def _over_time(compared: Concordance) -> Table:
    """The agreement; of the findings those that are met most often."""
    often = sorted(compared.findings, key=lambda name: compared.findings[name].neither)
    names = [name for name in often if name != ANY][:_IN_COLUMNS]
    table = Table(box=None, pad_edge=False)
    table.add_column("when", no_wrap=True)
    for title in ("studies", ANY):
        table.add_column(title, justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    today = date.today()
    for period in compared.periods:
        shares = [_share(period.findings[name].agreement) for name in (ANY, *names)]
        table.add_row(_days(period, today), str(period.findings[ANY].studies), *shares)
    return table


def _days(period: Period, today: date) -> str:
    until = period.until(today)
    days = str(period.first) if period.first == until else f"{period.first} to {until:%m-%d}"
    return f"{days} so far" if period.is_so_far(today) else days


def _failures(ends: Mapping[str, int]) -> str:
    failed = [f"{count} {end}" for end, count in sorted(ends.items()) if end != "result"]
    return ", ".join(failed) or "none"


def _said(found: Sequence[str]) -> str:
    return ", ".join(found) or "nothing"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.2f} to {estimate.high:.2f}" if estimate.tells else "–"


def _plain(compared: Concordance) -> dict[str, Any]:
    today = date.today()
    return {
        "shadow": compared.shadow,
        "studies": compared.studies,
        "compared": compared.compared,
        "under_way": compared.under_way,
        "median_seconds": {"own": compared.own_seconds, "shadow": compared.shadow_seconds},
        "ended": {"own": dict(compared.own_ends), "shadow": dict(compared.shadow_ends)},
        "findings": [
            {
                "finding": name,
                **_numbers(counts),
                "over_time": [
                    {
                        "first": str(period.first),
                        "last": str(period.until(today)),
                        "so_far": period.is_so_far(today),
                        **_numbers(period.findings[name]),
                    }
                    for period in compared.periods
                ],
            }
            for name, counts in compared.findings.items()
        ],
        "differ": [_differing(pair) for pair in compared.differing],
    }


def _numbers(counts: Fourfold) -> dict[str, Any]:
    beyond = counts.kappa
    return {
        "both": counts.both,
        "own": counts.own,
        "shadow": counts.shadow,
        "neither": counts.neither,
        "agreement": counts.agreement,
        "kappa": None if beyond is None else beyond.value,
        "kappa_95": [beyond.low, beyond.high] if beyond is not None and beyond.tells else None,
    }


def _differing(pair: Pair) -> dict[str, Any]:
    found = {"own_found": list(pair.own_found), "shadow_found": list(pair.found)}
    return {"job": str(pair.of), "shadow_job": str(pair.job_id), **found}
