"""Studies that are sent to us for an application, in a bucket: durable there, and noted in the database,
before the sender hears of it. Whichever machines took a study, it is one, and any of them makes it into a job
once it has been quiet for as long as the application says."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from gateway.archives.arrived import ARRIVED_IN
from gateway.archives.bucket import Bucket
from gateway.contract import Failure, Header
from gateway.intake.incoming import CALLER, KEEP
from gateway.jobs.records import Job, NewJob, Origin
from gateway.jobs.states import ALIVE
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.arrivals import Arrival, Delivery
from gateway.loops import Loop
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

_LOOK = 0.5
_LOOK_ROUND = 5.0  # at what another process has closed, and didn't live to begin
_REST = 5.0
_WEIGHED_FOR = 5.0
_SWEEP_EVERY = 3600.0
_NOBODYS = 24 * 3600.0  # what was stored, and is noted nowhere, by a process that died in between


class SharedIncoming:
    """Made in the event loop that the store lives in; `keep` is called from other threads."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        bucket: Bucket,
        *,
        clean_every: float = 30.0,
        nobodys_after: float = _NOBODYS,
    ) -> None:
        self._settings = settings
        self._store = store
        self._bucket = bucket
        self._clean_every = clean_every
        self._nobodys_after = nobodys_after
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[Delivery, UUID] = {}
        self._looked_round = -_LOOK_ROUND
        self._cleaned = time.monotonic()
        self._swept = -_SWEEP_EVERY
        self._held = 0
        self._weighed = -_WEIGHED_FOR

    def adopt(self, settings: Settings) -> None:
        self._settings = settings

    # -- taking ---------------------------------------------------------------------------------------

    def keep(self, application: str, header: Header, path: Path) -> None:
        self._wait_for_keeping(application, [(header, path)])

    def keep_upload(
        self,
        application: str,
        upload: Path,  # noqa: ARG002 it needs no place on this disk
        files: Collection[tuple[Header, Path]],
    ) -> None:
        self._wait_for_keeping(application, files)

    def _wait_for_keeping(self, application: str, files: Collection[tuple[Header, Path]]) -> None:
        kept = asyncio.run_coroutine_threadsafe(self._keep(application, files), self._loop)
        try:
            kept.result()
        except Failure as failure:
            raise OSError(failure.message) from None
        except DatabaseError:
            raise OSError("the database doesn't answer") from None
        except CancelledError:
            raise OSError("the gateway is being stopped") from None

    async def _keep(self, application: str, files: Collection[tuple[Header, Path]]) -> None:
        arrived, paths = [], {}
        for header, path in files:
            size = (await asyncio.to_thread(path.stat)).st_size
            name = uuid4()
            paths[name] = path
            arrived.append(
                Arrival(name, header.sop_instance_uid, size, application, header.study_instance_uid)
            )
        await self._require_room(sum(each.size for each in arrived))
        await self._bucket.put_all(paths)
        # If the answer to this is lost they may be known: then they stay, and else they are swept.
        await self._store.add_arrivals(arrived)

    async def _require_room(self, coming: int) -> None:
        if time.monotonic() - self._weighed > _WEIGHED_FOR:
            self._held = await self._store.bytes_arrived()
            self._weighed = time.monotonic()
        if self._held + coming > self._bucket.most_bytes:
            raise OSError(errno.ENOSPC, "the spool's bucket holds spool.most_bytes already")
        self._held += coming

    # -- jobs -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        await Loop("incoming studies", most=_REST).run(self._look, pause=_LOOK)

    async def _look(self) -> None:
        settle = {name: application.settle for name, application in self._settings.applications.items()}
        closed = await self._store.close_deliveries(settle)
        if closed or time.monotonic() - self._looked_round > _LOOK_ROUND:
            fresh = [each for each in await self._store.deliveries() if each not in self._jobs]
            await self._begin_all(fresh)
            self._looked_round = time.monotonic()
        if time.monotonic() - self._cleaned > self._clean_every:
            self._cleaned = time.monotonic()
            await self._clean()
        if time.monotonic() - self._swept > min(_SWEEP_EVERY, self._nobodys_after):
            self._swept = time.monotonic()
            await self._sweep()

    async def _begin_all(self, fresh: Sequence[Delivery]) -> None:
        """One that makes trouble keeps no other waiting."""
        sent: dict[tuple[str, str | None], list[Job]] = defaultdict(list)
        for job in await self._store.sent_of({each.study_instance_uid for each in fresh}):
            sent[job.application, job.study_instance_uid].append(job)
        trouble: Exception | None = None
        for delivery in fresh:
            try:
                await self._begin(delivery, sent[delivery.application, delivery.study_instance_uid])
            except DatabaseError:
                raise
            except Exception as bug:  # noqa: BLE001 - told by the loop
                trouble = trouble or bug
        if trouble is not None:
            raise trouble

    async def _begin(self, delivery: Delivery, sent: Sequence[Job]) -> None:
        found = self._settings.application(delivery.application)
        if found is None:
            return  # it stays; with the application it goes on
        department, application = found
        for job in sent:
            if _brought(job) == delivery.key:
                self._jobs[delivery] = job.id
                return
        came = await self._uids(delivery, delivery.key)
        for job in sent:
            key = _brought(job)
            if job.state in ALIVE and key is not None and came <= await self._uids(delivery, key):
                if await self._remove(delivery):
                    log.info("a study was sent again; its job goes on", job=str(job.id))
                return
        new = NewJob(
            department=department,
            application=delivery.application,
            adapter=application.adapter,
            origin=Origin.SENT,
            priority=application.priority,
            study_instance_uid=delivery.study_instance_uid,
            context={ARRIVED_IN: str(delivery.key)},
            caller=CALLER,
            idempotency_key=str(delivery.key),
        )
        job, made = await self._store.create(new)
        self._jobs[delivery] = job.id
        if made:
            log.info("a study was sent to us", job=str(job.id), application=delivery.application)

    async def _uids(self, delivery: Delivery, key: UUID) -> set[str]:
        return {*await self._store.arrived_of(delivery.application, delivery.study_instance_uid, key)}

    # -- cleaning -------------------------------------------------------------------------------------

    async def _clean(self) -> None:
        """A study goes when none of its jobs needs it: later ones go with what came before."""
        needed = await self._store.needed_of(self._jobs.values(), KEEP)
        of_study: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        for delivery in self._jobs:
            of_study[delivery.application, delivery.study_instance_uid].append(delivery)
        for deliveries in of_study.values():
            if not any(self._jobs[each] in needed for each in deliveries):
                for each in deliveries:
                    if not await self._remove(each):
                        return
                    del self._jobs[each]

    async def _remove(self, delivery: Delivery) -> bool:
        """There first: what is still noted is removed again, whoever dies in between."""
        study = delivery.application, delivery.study_instance_uid
        ids = [each.id for each in await self._store.every_arrival_of(*study, delivery.key)]
        try:
            await self._bucket.remove(ids)
        except Failure as failure:
            log.warning("a study that is needed no more can't be removed now", error=failure.message)
            return False
        await self._store.forget_arrivals(ids)
        return True

    async def _sweep(self) -> None:
        swept = 0
        try:
            async for names in self._bucket.older_than(self._nobodys_after):
                left = {*names} - await self._store.arrived_among(names)
                await self._bucket.remove(left)
                swept += len(left)
        except Failure as failure:
            log.warning("the spool's bucket can't be looked through now", error=failure.message)
        if swept:
            log.info("objects that are nobody's are removed from the spool's bucket", objects=swept)


def _brought(job: Job) -> UUID | None:
    with suppress(ValueError):  # what it came with lies in a folder, from before there was a bucket
        return UUID(str((job.context or {}).get(ARRIVED_IN)))
    return None
