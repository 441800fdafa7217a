"""What nobody waits for: files that jobs left behind, data that is kept no longer, seals on the histories."""

from __future__ import annotations

import asyncio
import time

import structlog

from gateway.archives.spool import Spool
from gateway.jobs.store import DatabaseError, Store
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

_LOOK = 5.0  # files
_HOUR = 3600.0  # the rest


class Housekeeping:
    def __init__(self, settings: Settings, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self._keep_days = {name: application.keep_days for name, application in settings.applications.items()}

    async def run(self) -> None:
        """At once, then again and again, until cancelled."""
        last = -_HOUR
        while True:
            try:
                await self.sweep()
                if time.monotonic() - last >= _HOUR:
                    await self.purge()
                    await self.seal()
                    last = time.monotonic()
            except (DatabaseError, OSError) as trouble:
                log.warning("housekeeping is put off", error=type(trouble).__name__)
            await asyncio.sleep(_LOOK)

    async def sweep(self) -> int:
        """Remove the files of jobs that have ended, whichever machine they ended on. Folders of jobs that
        aren't in this database are another gateway's."""
        lying = await asyncio.to_thread(self._spool.jobs)
        ended = await self._store.ended_of(lying) if lying else []
        for job_id in ended:
            await asyncio.to_thread(self._spool.forget, job_id)
        if ended:
            log.info("files of ended jobs are removed", jobs=len(ended))
        return len(ended)

    async def purge(self) -> int:
        purged = await self._store.purge(self._keep_days)
        if purged:
            log.info("data kept long enough is removed", jobs=purged)
        return purged

    async def seal(self) -> None:
        """The log, which lies elsewhere, keeps what the seal was: the whole chain can't be made anew."""
        sealed = await self._store.seal()
        if sealed is not None:
            log.info("histories sealed", jobs=len(sealed.heads), seal=sealed.hash)
