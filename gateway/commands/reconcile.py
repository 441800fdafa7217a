"""gateway reconcile: which studies an archive has that were never processed; --start begins them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gateway.building.house import build
from gateway.commands.jobs import who_asks
from gateway.commands.opening import FAILED, complain, go, only_looking, reached, read_settings
from gateway.settings.sections import Settings
from gateway.watch.reconcile import start as start_studies


def reconcile(config: Path | None, start: bool, as_json: bool) -> int:
    settings = read_settings(config)
    if not settings.reconcile:
        complain("there is nothing to compare: reconcile is missing in the configuration")
        return FAILED
    return go(_reconcile(settings, start, as_json))


async def _reconcile(settings: Settings, start: bool, as_json: bool) -> int:
    async with (
        reached(settings, "to compare with archives", acts=start) as url,
        build(only_looking(settings), url) as house,
    ):
        house.lasting.circuits.only_look()
        compared = await house.reconciliation.compare_all()
        begun = await start_studies(settings, house.lasting.store, who_asks()) if start else []
    if as_json:
        print(json.dumps({"compared": [asdict(each) for each in compared], "jobs": begun}))
        return 0
    for each in compared:
        unclear = f", {each.unclear} unclear" if each.unclear else ""
        print(
            f"{each.application}, {each.archive}: {each.listed} studies, {len(each.missing)} never"
            f" processed{unclear}"
        )
        for study in each.missing:
            print(f"  {study}")
    if start:
        print(f"begun: {len(begun)} jobs")
    elif any(each.missing for each in compared):
        print("gateway reconcile --start begins them")
    return 0
