"""Those who have signed out: no copy of their cookie opens anything any more, at no replica.

A cookie carries all that it says, sealed, so that nobody is asked for each call; what was ended before its
time is remembered here, and told to the other replicas by the database.
"""

from __future__ import annotations

import time

from gateway.jobs.store import Store
from gateway.loops import Loop

_EVERY = 3.0


class EndedVisits:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._here: dict[str, float] = {}
        self._elsewhere: frozenset[str] = frozenset()

    def __contains__(self, visit: str) -> bool:
        return visit in self._here or visit in self._elsewhere

    async def add(self, visit: str, until: float) -> None:
        """`until`: when it would have ended by itself, in seconds since 1970."""
        self._here[visit] = until
        await self._store.end_visit(visit, until)

    async def run(self) -> None:
        await Loop("ended visits").run(self.look, pause=_EVERY)

    async def look(self) -> None:
        self._elsewhere = frozenset(await self._store.ended_visits())
        self._here = {visit: until for visit, until in self._here.items() if until > time.time()}
