"""What is broken: causes, each once, whatever number of jobs has met it, with the button that mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode

from gateway.console import wording
from gateway.jobs.store import Store
from gateway.jobs.store.circuits import Circuit
from gateway.jobs.store.overview import Standing, Trouble
from gateway.jobs.store.pauses import Pause
from gateway.jobs.store.replicas import Replica
from gateway.settings.sections import Settings
from gateway.watch.syslog import PEER as AUDIT_COLLECTOR

_GOES_ON = "What waits goes on by itself once it is back; nothing is lost."
_TAKEN_IN = "New work is taken in and waits; it goes on by itself when this is unpaused."


@dataclass(frozen=True, slots=True)
class Button:
    """A `get` asks first, with the number of jobs; a `post` does it."""

    label: str
    way: Literal["get", "post"]
    address: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cause:
    """`sign`: how it looks. `list`: the address of the jobs that it counts. `command`: what one may type in
    place of the button."""

    sign: Literal["held", "failing", "paused", "broken"]
    sentence: str
    reason: str
    since: datetime
    jobs: int
    advice: str
    list: str | None
    button: Button | None
    next_at: datetime | None = None
    command: str = ""


async def tell_causes(settings: Settings, store: Store) -> list[Cause]:
    """The worst first: what is broken, then what people have stopped, then what is tried again by itself."""
    circuits, pauses = await asyncio.gather(store.circuits(), store.pauses())
    waiting = await store.count_waiting()
    troubles, standing, replicas = await asyncio.gather(
        store.tell_troubles(), store.standing_alerts(), store.replicas()
    )
    paused = {each.peer: each for each in pauses}
    away = [each for each in circuits if each.is_open]
    known = {*paused, *(each.peer for each in away)}
    return [
        *(
            _of_circuit(settings, each, waiting.get(each.peer, 0))
            for each in sorted(away, key=lambda circuit: circuit.since)
            if each.peer not in paused
        ),
        *(_of_alert(each) for each in standing if each.cause not in known and not _is_told_by_jobs(each)),
        *(_of_replica(each) for each in replicas if each.silent),
        *(_of_trouble(settings, each) for each in troubles if each.state == "held"),
        *(_of_pause(settings, each, waiting.get(each.peer, 0)) for each in pauses),
        *(_of_trouble(settings, each) for each in troubles if each.state != "held"),
    ]


def _of_circuit(settings: Settings, circuit: Circuit, jobs: int) -> Cause:
    name = wording.name_peer(settings, circuit.peer)
    has_jobs = circuit.peer != AUDIT_COLLECTOR
    more = "Nothing is lost." if circuit.kind == "refused" else _GOES_ON  # its advice says when it goes on
    advice, more, reason = circuit.advice or "", more if has_jobs else "", circuit.reason or ""
    return Cause(
        "broken",
        f"{name} {wording.ailing(circuit)}",
        "" if reason == f"{name} can't be reached" else reason,  # it says no more
        circuit.since,
        jobs,
        f"{advice} {more}".strip(),
        f"/jobs?{urlencode({'waits_for': circuit.peer})}" if has_jobs else None,
        Button("It is mended: look again now", "post", "/peers/look", {"peer": circuit.peer}),
        circuit.next_probe_at,
    )


def _of_pause(settings: Settings, pause: Pause, jobs: int) -> Cause:
    name = wording.name_peer(settings, pause.peer)
    return Cause(
        "paused",
        f"the gateway has paused {name}" if pause.by_itself else f"{name} was paused by {pause.who}",
        pause.why,
        pause.since,
        jobs,
        f"{pause.advice} {_TAKEN_IN}" if pause.by_itself else _TAKEN_IN,
        f"/jobs?{urlencode({'waits_for': pause.peer})}",
        Button("Unpause", "post", "/peers/unpause", {"peer": pause.peer}),
        command=pause.command,
    )


def _of_trouble(settings: Settings, trouble: Trouble) -> Cause:
    """`held` needs a person; the rest is tried again by itself."""
    held = trouble.state == "held"
    found_by = {"failing": trouble.destination} if trouble.destination else {"cause": trouble.cause or ""}
    asked = {"state": trouble.state, **found_by}
    sentence = f"Failing while {trouble.state}, and tried again by itself"
    if trouble.destination is not None:
        place = wording.name_peer(settings, f"destinations.{trouble.destination}")
        place = "the slide" if trouble.destination == "sectra" else place
        sentence = f"Results can’t be delivered to {place}, and are tried again"
    button = Button(
        f"{'Resume' if held else 'Retry'} {wording.count(trouble.jobs, 'job')}",
        "get",
        "/jobs/act",
        {"do": "resume" if held else "retry", **asked},
    )
    advice = trouble.advice
    if trouble.choosing:
        alone = trouble.jobs == 1
        advice = (
            f"Open {'the' if alone else 'each'} job and choose the right study there; it goes on with that."
        )
        button = (
            Button("Open the job to choose", "get", f"/jobs/{trouble.job}", {})
            if alone
            else Button(f"See the {wording.count(trouble.jobs, 'job')} to choose", "get", "/jobs", asked)
        )
    command = ""
    if trouble.jobs == 1 and trouble.job:
        act = "show" if trouble.choosing else "resume" if held else "retry"
        command = f"gateway jobs {act} {trouble.job}"
    return Cause(
        "held" if held else "failing",
        sentence if trouble.destination else trouble.message,
        trouble.message if trouble.destination else "" if held else sentence,
        trouble.since,
        trouble.jobs,
        advice or ("" if held else "It is tried again by itself; once it is mended, retry it at once."),
        f"/jobs?{urlencode(asked)}",
        button,
        None if held else trouble.next_at,
        command,
    )


def _of_replica(silent: Replica) -> Cause:
    return Cause(
        "failing",
        f"the gateway’s process on {silent.host} ({silent.does}) gives no sign of life",
        "",
        silent.seen_at,
        0,
        "Another goes on with its jobs, if there is one. See whether it was stopped, or its machine; it is"
        " forgotten after an hour.",
        None,
        None,
    )


def _is_told_by_jobs(alert: Standing) -> bool:
    """With each of their reasons, and what mends it."""
    return alert.cause.partition(".")[0] in ("held", "deliveries")


def _of_alert(alert: Standing) -> Cause:
    kind, _, place = alert.cause.partition(".")
    head, _, reason = alert.sentence.partition(": ")
    return Cause("broken", head, reason, alert.since, 0, alert.advice, None, _where_to_look(kind, place))


def _where_to_look(kind: str, place: str) -> Button | None:
    name = place.partition(".")[0]
    match kind:
        case "drift" | "register":
            return Button("See its rates", "get", f"/quality#{name}", {"application": name})
        case "configuration":
            return Button("See what was refused", "get", "/configuration", {})
        case "canary":
            return Button("See the vendor", "get", f"/peers#adapters.{place}", {})
        case "silence":
            return Button("See its jobs", "get", "/jobs", {"application": place})
        case _:
            return None
