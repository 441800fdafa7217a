"""Whose turn it is, of the jobs that are due. Pure: no I/O, no clock.

The most urgent goes first; among equals whoever is nearest to its end, then whoever has been due for longest.
So that none of this starves another:

- of the room, a part is kept for what is more urgent than what fills it, and no vendor's jobs take more than
  half of what the others' leave: vendors that hang don't stop the rest;
- every eighth turn is that of whoever has waited for longest, once that is long.

What nobody waits for (below 0) goes last and in an eighth of the room, never ages, and leaves a place at each
limited vendor that has several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from gateway.jobs.states import State

URGENT = 9  # the highest priority there is
_NEAREST_ITS_END = (
    *(State.FAILED, State.CANCELLED, State.HELD, State.DONE),
    *(State.DELIVERING, State.ANALYSING, State.SUBMITTING, State.LOCATING, State.RECEIVED),
)
_STAGE = {state: stage for stage, state in enumerate(_NEAREST_ITS_END)}
_AGED = 600.0
_ONE_IN = 8
_PART_BESIDE = 8  # of the room, one part in so many


@dataclass(frozen=True, slots=True)
class Due:
    id: UUID
    adapter: str
    priority: int
    state: State
    at_vendor: bool
    waited: float  # seconds

    @property
    def rank(self) -> tuple[int, int, float]:
        return -self.priority, _STAGE[self.state], -self.waited

    @property
    def needs_place(self) -> bool:
        """To be sent to its vendor, and not counted as being there yet."""
        return self.state == State.SUBMITTING and not self.at_vendor

    @property
    def beside(self) -> bool:
        """Nobody waits for it."""
        return self.priority < 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is due, as far as there may be room for it, and the seconds until more is."""

    due: Collection[Due] = ()
    next_in: float | None = None
    free: Mapping[str, int] = field(default_factory=dict)  # places at the limited vendors that are waited for
    spare: Mapping[str, int] = field(default_factory=dict)  # of them, for what nobody waits for


class Turns:
    """The room of one worker, shared out."""

    def __init__(self, room: int, kept: int = 0, vendors: int = 1) -> None:
        """`kept`: how much of the room for the most urgent alone; `vendors`: how many jobs may go to."""
        self._room = room
        self._kept = kept
        self._many = vendors > 1
        self._taken = 0

    def choose(self, outlook: Outlook, at_work: Mapping[str, int]) -> list[Due]:
        """Those to take now; `at_work`: how many are already, by vendor."""
        count, free, spare = Counter(at_work), dict(outlook.free), dict(outlook.spare)
        chosen: list[Due] = []
        for due in self._in_order(outlook.due):
            if sum(count.values()) >= self._room:
                break
            if not self.has_room(due.adapter, due.priority, count):
                continue
            if due.needs_place:
                if (spare if due.beside else free).get(due.adapter, 1) <= 0:
                    continue
                for places in (free, spare):
                    if due.adapter in places:
                        places[due.adapter] -= 1
            count[due.adapter] += 1
            self._taken += 1
            chosen.append(due)
        return chosen

    def has_room(self, adapter: str, priority: int, at_work: Mapping[str, int]) -> bool:
        extra = self._kept * min(max(priority, 0), URGENT) // URGENT  # of what is kept
        taken, theirs = sum(at_work.values()), at_work.get(adapter, 0)
        if priority < 0:
            return taken < max(1, self._room // _PART_BESIDE)
        left = self._room - self._kept - (taken - theirs)
        share = max(min(left, 1), left // 2) if self._many else left
        return taken < self._room - self._kept + extra and theirs < share + extra

    def _in_order(self, due: Collection[Due]) -> Iterator[Due]:
        aged = sorted(
            (each for each in due if each.waited > _AGED and not each.beside), key=lambda each: each.waited
        )
        given: set[UUID] = set()
        for each in sorted(due, key=lambda each: each.rank):
            while aged and aged[-1].id in given:
                aged.pop()
            if aged and (self._taken + 1) % _ONE_IN == 0:
                given.add(aged[-1].id)
                yield aged.pop()
            if each.id not in given:
                given.add(each.id)
                yield each
