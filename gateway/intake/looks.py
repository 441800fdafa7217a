"""Whoever looks at what identifies a patient stands in the audit: once for a while at the same job, since a
page that is live and a program that waits ask for it again and again."""

from __future__ import annotations

import time
from collections import OrderedDict
from uuid import UUID

from gateway.jobs.store import Store

_A_WHILE = 600.0
_MOST = 5000


class Looks:
    def __init__(self, store: Store, by: str) -> None:
        self._store = store
        self._by = by
        self._noted: OrderedDict[tuple[str, UUID], float] = OrderedDict()

    async def note(self, who: str, job_id: UUID) -> None:
        look, now = (who, job_id), time.monotonic()
        if now - self._noted.get(look, -_A_WHILE) < _A_WHILE:
            return
        await self._store.note_in_audit(who, "looked at", {"by": self._by}, job_id)
        self._noted[look] = now
        self._noted.move_to_end(look)
        while len(self._noted) > _MOST:
            self._noted.popitem(last=False)
