"""What is the matter with one job: what it waits for, what peers said of it, what helps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.console.journey import Step
from gateway.jobs.records import CANCELLED, Delivery, Event, Job, Said
from gateway.jobs.states import ALIVE, FINAL, State
from gateway.jobs.store import Store
from gateway.jobs.store.batches import Act
from gateway.jobs.store.pauses import Pause


@dataclass(frozen=True, slots=True)
class Stop:
    """The peer without which it doesn't go on. `away`: that is known of it, so that it can be looked at."""

    peer: str
    pause: Pause | None
    away: bool


@dataclass(frozen=True, slots=True)
class AtVendor:
    """`usual`: seconds that half of the application's latest jobs took there."""

    since: datetime
    usual: float | None
    held_at: datetime | None


async def find_stop(
    store: Store, job: Job, deliveries: Sequence[Delivery], pauses: Sequence[Pause]
) -> Stop | None:
    if job.state in FINAL or job.state == State.HELD or job.lease_holder is not None:
        return None
    peer = job.waits_for or next((each.waits_for for each in deliveries if each.waits_for), None)
    if peer is None:
        return None
    pause = next((each for each in pauses if each.peer == peer), None)
    away = any(each.peer == peer and each.is_open for each in await store.circuits())
    return Stop(peer, pause, away)


async def look_at_vendor(store: Store, job: Job, steps: Sequence[Step]) -> AtVendor | None:
    if job.state != State.ANALYSING or job.waits_for is not None or not steps:
        return None
    return AtVendor(steps[-1].since, await store.usual_seconds(job.application), job.result_by)


def acts_on(job: Job, stop: Stop | None) -> list[tuple[Act, str]]:
    """The one that helps most comes first. While a peer bars its way, trying again doesn't."""
    barred = stop is not None and (stop.pause is not None or (stop.away and not is_used_up(stop)))
    possible: list[tuple[Act, str]] = []
    if job.state == State.HELD and job.held_in is not None:
        possible.append(("resume", f"Resume in {job.held_in}"))
    elif job.state in (State.FAILED, State.CANCELLED) and job.purged_at is None:
        possible.append(("retry", "Begin again"))
    elif job.state == State.DONE and job.purged_at is None and not is_unasked_for(job):
        possible.append(("retry", "Have it analysed again"))
    elif job.state not in FINAL and job.lease_holder is None and not barred:
        possible.append(("retry", "Retry now"))
    if job.state in ALIVE:
        possible.append(("cancel", "Cancel"))
    return possible


def is_used_up(stop: Stop) -> bool:
    """It takes no more for now, which one job may try."""
    return stop.peer.startswith("quotas.")


def is_unasked_for(job: Job) -> bool:
    return job.canary or job.beside


def choices_of(job: Job, events: Sequence[Event]) -> list[str]:
    """Studies of which a person is to choose one."""
    if job.state != State.HELD:
        return []
    held = next((event for event in reversed(events) if event.what == State.HELD.value), None)
    return [str(each) for each in (held.detail.get("choices") or [])] if held else []


def words_when_held(told: Sequence[Said]) -> Mapping[str, Any]:
    return next((each.words for each in reversed(told) if each.what == State.HELD.value), {})


def words_on_the_matter(
    job: Job, events: Sequence[Event], deliveries: Sequence[Delivery], told: Sequence[Said]
) -> list[tuple[str, list[str]]]:
    """What peers said with what is the matter now: by destination, or else by none."""
    if job.error_message is None:
        return []
    failing = {each.destination for each in deliveries if each.state != "done" and each.last_error}
    last: dict[str, Event] = {}
    for each in events:
        if "message" in each.detail:
            last[str(each.detail.get("destination", ""))] = each
    where = sorted(failing & last.keys()) or [""]
    return [
        (name, words)
        for name in where
        if (event := last.get(name))
        and (words := list(_spoken(_said_with(event.what if not name else f"{name}: {event.what}", told))))
    ]


def _said_with(what: str, told: Sequence[Said]) -> Mapping[str, Any]:
    return next((each.words for each in reversed(told) if each.what == what), {})


def _spoken(words: Mapping[str, Any]) -> Iterator[str]:
    for each in words.values():
        if isinstance(each, Mapping):
            yield from _spoken(each)
        elif str(each or "").strip():
            yield str(each).strip()


def who_cancelled(events: Sequence[Event]) -> str:
    return next((str(each.detail.get("by") or "") for each in reversed(events) if each.what == CANCELLED), "")
