"""What came in one burst, of as many addresses as there may be: how many, where they are, from when to when.
However long it lasts, no more is kept and told than somebody may want to read."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, Final

_TOLD: Final = 10  # addresses, and networks: those with the most
_REMEMBERED: Final = 5000  # of each
_OTHERS: Final = "others"


class Burst:
    def __init__(self) -> None:
        self.tries = 0
        self._addresses = Counter[str]()
        self._networks = Counter[str]()
        self._first = self._last = datetime.now(UTC)

    def add(self, address: str) -> None:
        self.tries += 1
        self._last = datetime.now(UTC)
        for known, name in ((self._addresses, address), (self._networks, network(address))):
            known[name if name in known or len(known) < _REMEMBERED else _OTHERS] += 1

    def told(self) -> dict[str, Any]:
        return {
            "tries": self.tries,
            "different": {"addresses": _how_many(self._addresses), "networks": _how_many(self._networks)},
            "addresses": _most(self._addresses),
            "networks": _most(self._networks),
            "first": f"{self._first:%FT%TZ}",
            "last": f"{self._last:%FT%TZ}",
        }


def network(address: str) -> str:
    """Of an IPv4 address the 24 bits in front, of an IPv6 address the 64."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(ip_network(f"{known}/{24 if known.version == 4 else 64}", strict=False))


def _how_many(known: Counter[str]) -> int | str:
    return f"{_REMEMBERED} or more" if _OTHERS in known else len(known)


def _most(known: Counter[str]) -> dict[str, int]:
    told = dict(Counter({name: count for name, count in known.items() if name != _OTHERS}).most_common(_TOLD))
    left = known.total() - sum(told.values())
    return told | ({_OTHERS: left} if left else {})
