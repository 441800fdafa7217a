"""gateway replay: what would have become of jobs under another configuration. Nothing is sent or changed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.building.house import House, build
from gateway.commands.jobs import Filters, filter_of, here
from gateway.commands.opening import (
    WRONG_USE,
    complain,
    go,
    only_looking,
    reached,
    read_settings,
    source_of,
)
from gateway.jobs.store.reading import Filter
from gateway.settings.keys import has_encryption_key
from gateway.settings.sections import Settings
from gateway.work.foresight import Foresight
from gateway.work.hindsight import Hindsight, Replayed

_PAGE = 500
_AT_ONCE = 4  # archives have other work to do
_WIDE = 120
_NAME = 18


def replay(config: Path | None, filters: Filters, as_json: bool) -> int:
    if not filters["since"]:
        complain("say from when on: --since 2026-01-31")
        return WRONG_USE
    settings = read_settings(config)
    return go(_replay(settings, source_of(config), filters, as_json))


async def _replay(settings: Settings, source: str, filters: Filters, as_json: bool) -> int:
    looking = settings if has_encryption_key(settings) else only_looking(settings)
    async with (
        reached(settings, "to decide jobs again") as url,
        build(looking, url) as house,
    ):
        house.lasting.circuits.only_look()
        done = await _replay_all(house, settings, filter_of(filters))
    differ = [each for each in done if each.differences]
    undecided = [each for each in done if each.undecided]
    same = sum(not each.differences and not each.undecided for each in done)
    if as_json:
        told = {
            "since": filters["since"].isoformat(),
            "configuration": source,
            "revision": settings.revision,
            "jobs": len(done),
            "same": same,
            "differ": [_plain(each) for each in differ],
            "undecided": [_plain(each) for each in undecided],
        }
        print(json.dumps(told))
        return 0
    if differ or undecided:
        Console(width=None if os.isatty(1) else 200).print(_tabulate(done))
    print(
        f"{len(done)} jobs since {here(filters['since'])}: {len(differ)} would differ, {same} would not,"
        f" {len(undecided)} can't be decided any more"
    )
    return 0


async def _replay_all(house: House, settings: Settings, wanted: Filter) -> list[Replayed]:
    lookup = house.archives.lookup.at_any_time()
    foresight = Foresight(house.vendors, lookup, house.archives.of_slides, house.lasting.store.results_among)
    hindsight = Hindsight(settings, house.lasting.store, house.servers, house.archives.lookup, foresight)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def replay_one(job_id: UUID) -> Replayed | None:
        async with turns:
            return await hindsight.replay(job_id)

    done: list[Replayed] = []
    with _progress() as tell:
        async for page in _pages(house, wanted):
            for deciding in asyncio.as_completed([replay_one(job_id) for job_id in page]):
                if (decided := await deciding) is not None:
                    done.append(decided)
                    tell(len(done))
    return sorted(done, key=lambda each: (each.job.created_at, each.job.id), reverse=True)


async def _pages(house: House, wanted: Filter) -> AsyncIterator[list[UUID]]:
    after = None
    while found := await house.lasting.store.find(wanted, limit=_PAGE, after=after):
        after = found[-1].created_at, found[-1].id
        yield [job.id for job in found]


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """On a terminal in one line that goes away; elsewhere a line now and then."""
    if os.isatty(2):
        with Console(stderr=True).status("0 jobs decided again") as status:
            yield lambda count: status.update(f"{count} jobs decided again")
    else:
        yield lambda count: None if count % _PAGE else complain(f"{count} jobs decided again")


def _tabulate(done: Sequence[Replayed]) -> Table:
    """A row for each difference, and for each job that can't be decided."""
    whole = not os.isatty(1) or Console().width >= _WIDE
    table = Table(box=None, pad_edge=False)
    for title in (*(("created",) if whole else ()), "job", "application", "what"):
        table.add_column(title, no_wrap=True)
    table.columns[-2].max_width = None if whole else _NAME
    for title in ("was", "would be"):
        table.add_column(title, overflow="fold")
    for each in done:
        job_id = str(each.job.id)
        named = [here(each.job.created_at), job_id] if whole else [job_id[:8]]
        for what, was, would in each.differences:
            table.add_row(*named, Text(each.job.application), what, Text(was), Text(would))
        if each.undecided:
            told = Text(f"can't be known: {each.undecided}")
            table.add_row(*named, Text(each.job.application), "outcome", each.job.state, told)
    return table


def _plain(each: Replayed) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": str(each.job.id),
        "created_at": each.job.created_at.isoformat(),
        "application": each.job.application,
        "state": each.job.state,
        "differences": [difference._asdict() for difference in each.differences],
    }
    return told | ({"why": each.undecided} if each.undecided else {})
