"""Calls under way, by whom they are to. A slow answer may take its minute; but who lets all of them wait and
moves no byte meanwhile is asked whether it is well, long before their patience is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway import traffic


@dataclass(slots=True)
class _UnderWay:
    calls: int
    since: float  # its last sign
    moved: int
    ended: int = 0


class Calls:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._peers: dict[str, _UnderWay] = {}

    @contextmanager
    def to(self, *peers: str) -> Iterator[None]:
        for peer in peers:
            known = self._peers.setdefault(peer, _UnderWay(0, self._clock(), _moved(peer)))
            known.calls += 1
        try:
            yield
        finally:
            for peer in peers:
                known = self._peers[peer]
                known.calls -= 1
                known.ended += 1
                known.since = self._clock()
                if not known.calls:
                    del self._peers[peer]

    def silent_for(self, seconds: float) -> Iterator[str]:
        """Each is named again after as long a silence."""
        now = self._clock()
        for peer, known in list(self._peers.items()):
            moved = _moved(peer)
            if moved != known.moved:
                known.moved, known.since = moved, now
            elif now - known.since >= seconds:
                known.since = now
                yield peer

    def ended(self, peer: str) -> int | None:
        """How many have, of those that others went on beside; None once all have."""
        known = self._peers.get(peer)
        return None if known is None else known.ended


def _moved(peer: str) -> int:
    return traffic.received[peer] + traffic.sent[peer]
