"""Telling of refusals without a stranger filling the log: the first of a kind at once, then their number."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

_EVERY = 60.0
_REMEMBERED = 1000


@dataclass(slots=True)
class _Kind:
    told_at: float
    untold: int = 0


class Refusals:
    """From any thread. A kind is what was refused and to whom; what else is said may be anything."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, str], _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def tell(self, what: str, address: str, **said: str) -> None:
        now = self._clock()
        with self._lock:
            kind = self._kinds.get((what, address))
            if kind is not None and now - kind.told_at < _EVERY:
                kind.untold += 1
                return
            missed = 0 if kind is None else kind.untold
            self._kinds[what, address] = _Kind(now)
            self._kinds.move_to_end((what, address))
            if len(self._kinds) > _REMEMBERED:
                self._kinds.popitem(last=False)
        log.warning(what, address=address, **said, **({"before": missed} if missed else {}))
