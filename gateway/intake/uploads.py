"""What vendors upload: so many at once of one job, so that no token can hold up everybody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from aiohttp import web

from gateway.intake.problems import Problem

_AT_ONCE = 4  # of one job


class Uploads:
    def __init__(self) -> None:
        self._at_work: Counter[UUID] = Counter()

    @contextmanager
    def turn(self, job_id: UUID, request: web.Request) -> Iterator[None]:
        """As long as the call lasts: what was read of it is in memory till then."""
        if not request.can_read_body:
            yield
            return
        if self._at_work[job_id] >= _AT_ONCE:
            raise Problem(
                429, "too many uploads at once for one job; wait for some to end", {"Retry-After": "1"}
            )
        self._at_work[job_id] += 1
        try:
            yield
        finally:
            self._at_work[job_id] -= 1
            if not self._at_work[job_id]:
                del self._at_work[job_id]
