"""Who may be connected to our doors: so many in all, so many from one address, and the rest of what the
machine lets us open stays for our own work (files, the database, peers).

Nobody is kept out by the silent. When no place is free, a newcomer takes that of the one who has made the
least of his: of those who asked nothing, or dribble, for longer than it takes; then of those who ask nothing
at the moment; then of those who have just begun. Only where everybody is being served, there is none for him;
and of a storm from one address, which isn't worth that work, only for those who have asked something.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_FRESH = 2.0  # seconds
_DRIBBLE = 10_000.0  # bytes a second
_KEPT = (5, 0.0)
_CHURN = 50  # places a second that change hands within one address; a storm isn't worth more work


class Stage(Enum):
    """What a guest is doing."""

    ASKING = auto()  # from when he came until his first request is understood
    SENDING = auto()  # a body, which we wait for
    SERVED = auto()
    IDLE = auto()


class Guest:
    """Somebody connected. `since`: when the stage began; `received`: of a body, since then."""

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.stage = Stage.ASKING
        self.since = now
        self.received = 0
        self.leave: Callable[[], object] = _stay

    def enter(self, stage: Stage, now: float) -> None:
        self.stage, self.since, self.received = stage, now, 0

    def worth(self, now: float) -> tuple[int, float]:
        """Of his place, in an order."""
        age = now - self.since
        if self.stage is Stage.SERVED:
            return _KEPT
        if self.stage is Stage.IDLE:
            return 2, self.since
        if age < _FRESH:
            return 3, self.since
        pace = self.received / age
        return (1 if pace < _DRIBBLE else 4, pace) if self.stage is Stage.SENDING else (0, self.since)


class Household:
    """All guests of one address. `churned`: how many gave way in the second that began at `second`."""

    def __init__(self) -> None:
        self.guests: set[Guest] = set()
        self.second = 0.0
        self.churned = 0

    def may_churn(self, now: float) -> bool:
        if now - self.second >= 1.0:
            self.second, self.churned = now, 0
        self.churned += 1
        return self.churned <= _CHURN


class Places:
    def __init__(self, most: int, most_of_one: int, trusted: Collection[Network] = ()) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._trusted = trusted
        self._households: dict[str, Household] = {}
        self._count = 0

    def take(self, guest: Guest, *, asked: bool = False) -> bool:
        """Whether there is a place, or could be made. `asked`: he has said what he wants already."""
        now, name = guest.since, household(guest.address)
        home = self._households.get(name) or Household()
        if len(home.guests) >= self._most_of_one and not self._trusts(guest.address):
            if not (asked or home.may_churn(now)) or not self._make_room(home.guests, now):
                return False
        elif self._count >= self._most and not self._make_room_for(home, now, asked=asked):
            return False
        self._households.setdefault(name, home).guests.add(guest)
        self._count += 1
        return True

    def free(self, guest: Guest) -> None:
        name = household(guest.address)
        home = self._households.get(name)
        if home is not None and guest in home.guests:
            home.guests.discard(guest)
            self._count -= 1
            if not home.guests:
                del self._households[name]

    def _make_room_for(self, home: Household, now: float, *, asked: bool) -> bool:
        """At the cost of those who are many."""
        homes = list(self._households.values())
        most = max(len(each.guests) for each in homes)
        crowd = [each for each in homes if len(each.guests) * 2 > most]
        if home in crowd and not asked and not home.may_churn(now):
            return False
        return any(
            self._make_room([guest for each in among for guest in each.guests], now)
            for among in (crowd, homes)
        )

    def _make_room(self, among: Collection[Guest], now: float) -> bool:
        least = min(among, key=lambda guest: guest.worth(now), default=None)
        if least is None or least.stage is Stage.SERVED:
            return False
        self.free(least)
        least.leave()
        return True

    def _trusts(self, address: str) -> bool:
        return any(ip_address(address.partition("%")[0]) in network for network in self._trusted)


def _stay() -> None:
    """There is nobody yet who could leave."""


@lru_cache(1024)
def household(address: str) -> str:
    """What counts as one address: of IPv6 whoever has one has the 64 bits below it too."""
    plain = address.partition("%")[0]
    try:
        known = ip_address(plain)
    except ValueError:
        return plain
    if not isinstance(known, IPv6Address):
        return plain
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(IPv6Network((known, 64), strict=False).network_address)
