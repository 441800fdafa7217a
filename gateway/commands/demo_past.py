"""Weeks that a demo never had, made up so that the page of vendors' quality has something to show: two
versions of a vendor, the newer of which finds more since some days."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from random import Random
from typing import Final

from gateway.jobs.store.tallies import Tally

TOLD = "ten weeks of made-up counts on Quality"
VERSIONS: Final = ("3.1.4", "3.2.0")
ACCEPTED: Final = 80  # days ago, the newer one
_DAYS: Final = 75  # of the newer one, after some of the other
_MORE_SINCE: Final = 9
_SHARES: Final = {"empty": 0.1, "unsuitable": 0.03, "failed": 0.01, "took:29": 0.08}


def make_up_weeks(application: str, today: date) -> Iterator[Tally]:
    chance = Random(7)  # noqa: S311 - the same weeks each time
    for back in range(_DAYS + 20, 0, -1):
        version, day = VERSIONS[back <= _DAYS], today - timedelta(days=back)
        of = chance.randint(30, 50)
        shares = {"positive": 0.5 if back <= _MORE_SINCE else 0.25, **_SHARES}
        counts = {what: sum(chance.random() < share for _ in range(of)) for what, share in shares.items()}
        counts |= {"result": of, "took:24": of - counts["took:29"]}
        if back == _DAYS // 2:
            counts |= {"changed": 12, "deleted": 3}
        for what, count in counts.items():
            yield Tally(application, version, day, what, count)
