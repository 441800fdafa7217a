"""gateway jobs watch."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NoReturn

from rich.live import Live

from gateway.commands.jobs import Filters, filter_of, here, tabulate
from gateway.commands.opening import with_store_to_look
from gateway.intake.views import view
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter

_PAUSE = 1.0


def watch(config: Path | None, filters: Filters, limit: int) -> int:
    wanted = filter_of(filters)

    async def work(store: Store) -> int:
        await (_show(store, wanted, limit) if os.isatty(1) else _tell(store, wanted))

    return with_store_to_look(config, "to tell what happens to jobs", work)


async def _show(store: Store, wanted: Filter, limit: int) -> NoReturn:
    with Live(auto_refresh=False) as live:
        while True:
            live.update(tabulate([view(job) for job in await store.find(wanted, limit=limit)]), refresh=True)
            await asyncio.sleep(_PAUSE)


async def _tell(store: Store, wanted: Filter) -> NoReturn:
    """A line for each event."""
    last = await store.last_place()
    while True:
        told = await store.events_since(last)
        meant = await store.among({job_id for _, job_id, _ in told}, wanted) if told else set()
        for place, job_id, event in told:
            last = place
            if job_id in meant:
                why = event.detail.get("message", "")
                print(
                    f"{here(event.at)}  {job_id}  {event.state:<11} {event.what}{': ' if why else ''}{why}",
                    flush=True,
                )
        await asyncio.sleep(_PAUSE)
