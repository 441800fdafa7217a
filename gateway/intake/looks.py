"""Whoever looks at what identifies a patient stands in the audit: once for a while at the same, since a page
that is live and a program that waits ask for it again and again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any
from uuid import UUID

from gateway.jobs.store import Store
from gateway.jobs.store.reading import LOOKED_AT_WORDS

_A_WHILE = 600.0
_MOST = 5000


class Looks:
    def __init__(self, store: Store, by: str) -> None:
        self._store = store
        self._by = by
        self._noted: OrderedDict[tuple[str, Hashable], float] = OrderedDict()

    async def note(self, who: str, job_id: UUID) -> None:
        await self._note(who, job_id, "looked at", {"by": self._by}, job_id)

    async def note_words(self, who: str, job_id: UUID) -> None:
        """At what peers said of it."""
        await self._note(who, (job_id, LOOKED_AT_WORDS), LOOKED_AT_WORDS, {}, job_id)

    async def _note(
        self, who: str, seen: Hashable, what: str, detail: Mapping[str, Any], job_id: UUID
    ) -> None:
        look, now = (who, seen), time.monotonic()
        if now - self._noted.get(look, -_A_WHILE) < _A_WHILE:
            return
        await self._store.note_in_audit(who, what, detail, job_id)
        self._noted[look] = now
        self._noted.move_to_end(look)
        while len(self._noted) > _MOST:
            self._noted.popitem(last=False)
