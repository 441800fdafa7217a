"""What nobody waits for: files that jobs left behind, data that is kept no longer, keys to be renewed."""

from __future__ import annotations

import asyncio

import structlog

from gateway.archives.spool import Spool
from gateway.jobs.records import CANARY, SHADOW, TRIAL
from gateway.jobs.store import Store
from gateway.loops import Loop
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

_LOOK = 5.0  # files
_HOUR = 3600.0  # the rest
ALERTS_KEPT = 183  # days, as events are


class Housekeeping:
    def __init__(self, settings: Settings, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self._keep_days = {name: application.keep_days for name, application in settings.applications.items()}
        self._keep_days |= {f"{CANARY}{adapter}": 1 for adapter in settings.adapters}
        for name, application in settings.applications.items():
            tried = {*(f"{SHADOW}{name}/{shadow}" for shadow in application.shadow)}
            tried |= {f"{TRIAL}{name}/{adapter}" for adapter in settings.adapters}
            self._keep_days |= dict.fromkeys(tried, application.keep_days)

    async def run(self) -> None:
        """At once, then again and again, until cancelled. What breaks keeps nothing else from being done."""
        async with asyncio.TaskGroup() as group:
            group.create_task(Loop("sweeping").run(self.sweep, pause=_LOOK))
            group.create_task(Loop("purging").run(self.purge, pause=_HOUR))

    async def sweep(self) -> int:
        """Remove the files of jobs that have ended, whichever machine they ended on. Folders of jobs that
        aren't in this database are another gateway's."""
        lying = await self._spool.jobs()
        ended = await self._store.ended_of(lying) if lying else []
        for job_id in ended:
            await self._spool.forget(job_id)
        if ended:
            log.info("files of ended jobs are removed", jobs=len(ended))
        return len(ended)

    async def purge(self) -> int:
        await self._store.forget_alerts(ALERTS_KEPT)
        if renewed := await self._store.renew_department_keys():
            log.info("keys of departments are encrypted with the first of secret_keys now", keys=renewed)
        purged = await self._store.purge(self._keep_days)
        if purged:
            log.info("data kept long enough is removed", jobs=purged)
        return purged
