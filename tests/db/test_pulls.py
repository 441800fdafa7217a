"""The rate of an archive holds for all replicas together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.archives.terms import Pulls
from gateway.jobs.store import Store
from gateway.settings.quantities import Rate

RATE = Rate(3, 3600.0)


async def take(replica: Store, who: str, archive: str = "vna") -> float | None:
    def change(kept: Mapping[str, Any], now: float) -> tuple[Mapping[str, Any], float | None]:
        pulls = Pulls(RATE, kept)
        told = pulls.take(who, now)
        return pulls.keep(), None if told is None else told - now

    return await replica.change_pulls(archive, change)


async def test_replicas_count_together_and_tell_each_another_place(
    database_url: str, open_store: Callable[[str], Store]
) -> None:
    replicas = [open_store(database_url) for _ in range(3)]
    asked = [take(replicas[number % 3], str(number)) for number in range(15)]
    told = await asyncio.gather(*asked)
    waits = sorted(wait for wait in told if wait is not None)
    assert told.count(None) == 3 and len(waits) == 12
    rounds = [round(wait / RATE.seconds) for wait in waits]
    assert rounds == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    again = next(number for number, wait in enumerate(told) if wait is not None)
    for replica in replicas:
        assert await take(replica, str(again)) == pytest.approx(told[again], abs=60), (
            "asked again, told the same"
        )
    assert await take(replicas[0], "another", "pacs") is None
