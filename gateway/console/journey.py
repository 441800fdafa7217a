"""The way of one job, state by state: how long it was in each, and what it met there, folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.console import wording
from gateway.jobs.records import Event, Job
from gateway.jobs.states import FINAL

WIDTH = 240


@dataclass(frozen=True, slots=True)
class Step:
    """`until` is none while it is still there. `share`: of the whole way, as a width; `met`: what happened
    there, beside coming and going."""

    state: str
    since: datetime
    until: datetime | None
    seconds: float | None
    begin: int
    share: int
    met: Sequence[Event]


def tell_way(job: Job, events: Sequence[Event]) -> list[Step]:
    parts: list[list[Event]] = []
    for event in events:
        if parts and parts[-1][0].state == event.state:
            parts[-1].append(event)
        else:
            parts.append([event])
    if not parts:
        return []
    end = job.updated_at if job.state in FINAL else wording.now()
    begun = parts[0][0].at
    whole = max((end - begun).total_seconds(), 0.001)
    steps = []
    for place, part in enumerate(parts):
        since = part[0].at
        until = parts[place + 1][0].at if place + 1 < len(parts) else None
        ended = part[0].state in FINAL
        left = since if ended else until or end
        seconds = None if ended else max((left - since).total_seconds(), 0.0)
        begin = min(round(WIDTH * (since - begun).total_seconds() / whole), WIDTH - 2)
        share = 0 if ended else max(2, min(round(WIDTH * (seconds or 0) / whole), WIDTH - begin))
        met = [event for event in part if event.what not in (event.state, "accepted")]
        if met and met[0].what == "begun":  # as each step's first try
            del met[0]
        steps.append(Step(part[0].state, since, until, seconds, max(begin, 0), share, met))
    return steps
