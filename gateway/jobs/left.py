"""Jobs whose secrets this process can't read. While the keys are changed replica by replica another one can:
they are left to it, and only what nobody has read for long is a person's to mend."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.jobs.records import Job

_LOOK_AGAIN = 30.0  # others have them meanwhile


@dataclass(frozen=True, slots=True)
class _Left:
    since: float
    until: float
    updated_at: datetime  # it has moved on, if that is another by now


class LeftToOthers:
    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._left: dict[UUID, _Left] = {}

    @property
    def ids(self) -> list[UUID]:
        """Those that aren't to be taken up here now."""
        now = self._clock()
        self._left = {
            job: left
            for job, left in self._left.items()
            if now < left.until + 2 * max(_LOOK_AGAIN, self._patience)
        }
        return [job for job, left in self._left.items() if now < left.until]

    @property
    def next_in(self) -> float | None:
        """Seconds until one of them is to be looked at again."""
        now = self._clock()
        return min((left.until - now for left in self._left.values() if left.until > now), default=None)

    def leave(self, job: Job) -> bool:
        """False: nobody has read it for so long that nobody will."""
        now, before = self._clock(), self._left.get(job.id)
        since = before.since if before is not None and before.updated_at == job.updated_at else now
        self._left[job.id] = _Left(since, now + min(_LOOK_AGAIN, self._patience), job.updated_at)
        return now - since < self._patience
