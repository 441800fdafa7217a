"""Jobs whose slides couldn't be told what they wait for: they are told a little later, lest a doctor looks at
"queued" for as long as the peer is away."""

from __future__ import annotations

import time
from itertools import islice
from typing import Final
from uuid import UUID

_MOST: Final = 10_000
_AT_ONCE: Final = 20


class Untold:
    def __init__(self, again: float) -> None:
        self._again = again
        self._due: dict[UUID, float] = {}  # the oldest first

    def add(self, job_id: UUID) -> None:
        if len(self._due) < _MOST:
            self._due.setdefault(job_id, time.monotonic() + self._again)

    def take(self) -> list[UUID]:
        """Some of those that are due; who still can't be told comes back."""
        now = time.monotonic()
        due = [job_id for job_id, at in islice(self._due.items(), _AT_ONCE) if at <= now]
        for job_id in due:
            del self._due[job_id]
        return due
