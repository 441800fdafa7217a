"""Whose turn it is, of the jobs that are due. Pure: no I/O, no clock.

The most urgent goes first; among equals whoever is nearest to its end, then whoever has been due for longest.
So that none of this starves another:

- of the room, a part is kept for what is more urgent than what fills it, and no vendor's jobs take more than
  half of what the others' leave: vendors that hang don't stop the rest;
- every eighth turn, of all and of each vendor's, is that of whoever has waited longest, once that is long.

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
_ALL = ""
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


AtWork = Mapping[tuple[str, int], int]  # how many, by vendor and priority


class Turns:
    """The room of one worker, shared out."""

    def __init__(self, room: int, kept: int = 0, vendors: int = 1) -> None:
        """`kept`: how much of the room for the most urgent alone; `vendors`: how many jobs may go to."""
        self._room = room
        self._kept = kept
        self._many = vendors > 1
        self._since: Counter[str] = Counter()  # turns since one went that had waited for long

    def choose(self, outlook: Outlook, at_work: AtWork) -> list[Due]:
        """Those to take now."""
        count, free, spare = Counter(at_work), dict(outlook.free), dict(outlook.spare)
        chosen: list[Due] = []
        for due, aged in self._in_order(outlook.due):
            if sum(count.values()) >= self._room:
                break
            if not self.has_room(due.adapter, due.priority, count, aged=aged):
                continue
            if due.needs_place:
                if (spare if due.beside else free).get(due.adapter, 1) <= 0:
                    continue
                for places in (free, spare):
                    if due.adapter in places:
                        places[due.adapter] -= 1
            count[due.adapter, due.priority] += 1
            self._count(due.adapter, aged=aged)
            chosen.append(due)
        return chosen

    def has_room(self, adapter: str, priority: int, at_work: AtWork, *, aged: bool = False) -> bool:
        """`aged`: what is more urgent has had its turns, and isn't counted against it."""
        extra = self._kept * min(max(priority, 0), URGENT) // URGENT  # of what is kept
        counted = {kind: many for kind, many in at_work.items() if not aged or kind[1] <= priority}
        taken = sum(counted.values())
        theirs = sum(many for (whose, _), many in counted.items() if whose == adapter)
        if priority < 0:
            return taken < max(1, self._room // _PART_BESIDE)
        left = self._room - self._kept - (taken - theirs)
        share = max(min(left, 1), left // 2) if self._many else left
        return taken < self._room - self._kept + extra and theirs < share + extra

    def _in_order(self, due: Collection[Due]) -> Iterator[tuple[Due, bool]]:
        """And whether it goes because it has waited for long."""
        aged: dict[str, list[Due]] = {}
        for each in sorted(due, key=lambda each: each.waited):
            if each.waited > _AGED and not each.beside:
                aged.setdefault(each.adapter, []).append(each)
        given: set[UUID] = set()
        for each in sorted(due, key=lambda each: each.rank):
            while (old := self._take_aged(aged, given)) is not None:
                given.add(old.id)
                yield old, True
            if each.id not in given:
                given.add(each.id)
                yield each, False

    def _take_aged(self, aged: Mapping[str, list[Due]], given: Collection[UUID]) -> Due | None:
        """Whoever has waited for longest of those whose turn it is. Of one who then has no place, the turn is
        kept: places at a vendor are free when they are, and others' turns go on meanwhile."""
        longest: list[Due] = []
        for adapter, old in aged.items():
            if max(self._since[_ALL], self._since[adapter]) < _ONE_IN - 1:
                continue
            while old and old[-1].id in given:
                old.pop()
            if old and (not longest or old[-1].waited > longest[-1].waited):
                longest = old
        return longest.pop() if longest else None

    def _count(self, adapter: str, *, aged: bool) -> None:
        for whose in (_ALL, adapter):
            self._since[whose] = 0 if aged else self._since[whose] + 1
