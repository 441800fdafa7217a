"""What will be asked of the gateway, and what will be done to it: all of it follows from the seed alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Kind = Literal["click", "signed", "nuclei", "chest", "lungs", "notification", "rest", "pacs", "cloud"]
Sent = Literal["c-store", "stow"]
Then = Literal["cancel", "again", "modify", ""]

T = TypeVar("T")

KINDS: tuple[Kind | Sent, ...] = (
    *("click", "signed", "nuclei", "chest", "lungs", "notification"),
    *("rest", "pacs", "cloud", "c-store", "stow"),
)
CLICKED = ("click", "signed", "nuclei", "chest", "lungs")

PEERS = ("sectra", "vna", "pacs", "cloud", "milvue", "nuclei", "chest", "lungs", "ris")
BY_HTTP = frozenset(("sectra", "vna", "cloud", "milvue", "nuclei", "chest"))
TROUBLES = ("down", "hung", "slow", "cut", "garbage", "lost")
REFUSALS = ("401", "429", "503")
DATABASE = ("fast", "immediate", "exhausted", "terminated", "locked", "reader", "pinned", "stalled")
PROCESSES = ("kill", "freeze", "stop", "clock")

CALM_BEFORE = 8.0
CALM_AFTER = 5.0
BEYOND_THE_LEASE = 36.0


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that is asked of the gateway."""

    at: float
    number: int
    kind: Kind | Sent
    instances: int
    size: int
    then: Then
    after: float  # seconds until what is then done

    @property
    def clicked(self) -> bool:
        return self.kind in CLICKED


@dataclass(frozen=True, slots=True)
class Fault:
    at: float
    what: str
    target: str  # a peer, replica-N, database or disk
    seconds: float
    number: int = 0  # whatever the fault makes of it: where it cuts, how far a clock jumps

    @property
    def until(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.target:<10} {self.what:<10} for {self.seconds:4.1f} s"


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    seconds: float
    replicas: int
    works: tuple[Work, ...]
    faults: tuple[Fault, ...]

    def count(self) -> Counter[str]:
        return Counter(f"{_family(fault.target)} {fault.what}" for fault in self.faults)


def make_plan(
    seed: int, seconds: float, replicas: int, *, jobs_a_minute: float = 40.0, faults_a_minute: float = 10.0
) -> Plan:
    works = tuple(_make_works(random.Random(f"works {seed}"), seconds, jobs_a_minute))
    faults = _make_faults(random.Random(f"faults {seed}"), seconds, replicas, faults_a_minute)
    return Plan(seed, seconds, replicas, works, tuple(sorted(faults, key=lambda each: each.at)))


def _make_works(dice: random.Random, seconds: float, a_minute: float) -> Iterator[Work]:
    at, number, deck = 1.0, 0, _deck(dice, KINDS)
    while at < seconds - CALM_AFTER:
        kind = next(deck)
        large = dice.random() < 0.1
        then: Then = ""
        if kind in CLICKED:
            then = dice.choices(("", "cancel", "again", "modify"), (6, 2, 2, 2))[0]
        yield Work(
            round(at, 2),
            number,
            kind,
            dice.randint(1, 4),
            512 if large else dice.choice((32, 64, 128)),
            then,
            round(dice.uniform(0.2, 6.0) if then != "modify" else 20.0, 2),
        )
        at, number = at + dice.expovariate(a_minute / 60.0), number + 1


def _make_faults(dice: random.Random, seconds: float, replicas: int, a_minute: float) -> list[Fault]:
    """Each kind once before any comes again; never two at a time upon the same target."""
    deck = _deck(dice, list(_all_kinds(replicas)))
    busy: dict[str, float] = {}
    planned: list[Fault] = []
    at, end = CALM_BEFORE, seconds - CALM_AFTER
    while at < end:
        for _ in range(40):
            target, what = next(deck)
            lasts = _lasting(dice, what)
            if busy.get(target, 0.0) <= at and at + lasts <= end:
                planned.append(Fault(round(at, 2), what, target, lasts, _number(dice, what)))
                busy[target] = at + lasts + 2.0
                break
        at += dice.expovariate(a_minute / 60.0)
    return planned


def _all_kinds(replicas: int) -> Iterator[tuple[str, str]]:
    for peer in PEERS:
        for trouble in (*TROUBLES, *(REFUSALS if peer in BY_HTTP else ())):
            yield peer, trouble
    for each in DATABASE * 3:
        yield "database", each
    for number in range(replicas):
        for each in PROCESSES * 3:
            yield f"replica-{number}", each
    for each in ("full", "nearly full") * 2:
        yield "disk", each


def _lasting(dice: random.Random, what: str) -> float:
    if what == "freeze":
        return BEYOND_THE_LEASE
    if what == "kill":
        return round(dice.uniform(0.0, 6.0), 1)
    if what in ("fast", "immediate", "stop"):
        return round(dice.uniform(0.5, 4.0), 1)
    return round(dice.uniform(3.0, 12.0), 1)


def _number(dice: random.Random, what: str) -> int:
    if what == "clock":
        return dice.choice((-3600, -90, -5, 5, 90, 3600))
    return dice.randint(1, 4000)


def _deck(dice: random.Random, kinds: Sequence[T]) -> Iterator[T]:
    """All of them in some order, again and again."""
    while True:
        yield from dice.sample(kinds, len(kinds))


def _family(target: str) -> str:
    return target.partition("-")[0]
