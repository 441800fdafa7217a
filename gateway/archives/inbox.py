"""What vendors have stored with us for their jobs, until these end."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

from gateway.archives.bucket import Bucket
from gateway.archives.files import sync
from gateway.contract import Failure
from gateway.dicom.staging import Staging
from gateway.jobs.store import Store
from gateway.jobs.store.arrivals import Arrival

_FETCHED_AT_ONCE = 4


class Filled(Protocol):
    """One delivery, durable where it lies and nobody's yet."""

    async def give(self, job_id: UUID) -> None:
        """To a job, at once. One that comes again replaces the first."""
        ...

    async def discard(self) -> None:
        """Unless it was given."""
        ...


class Inbox(Protocol):
    async def fill(self, delivery: Mapping[str, Path]) -> Filled:
        """With the results of one delivery, by their UIDs. OSError, if they can't be kept."""
        ...

    async def lay_out(self, job_id: UUID, folder: Path) -> None:
        """What is there for the job, as <uid>.dcm in this folder, made if there is any; as old as it is."""
        ...

    async def forget(self, job_id: UUID) -> None: ...

    async def jobs(self) -> list[UUID]:
        """For whom there may be something."""
        ...


class FolderInbox:
    """inbox/<job>/, a folder for each delivery. `filling` lies on the same file system."""

    def __init__(self, root: Path, filling: Staging) -> None:
        self._root = root
        self._filling = filling

    async def fill(self, delivery: Mapping[str, Path]) -> Filled:
        """They count as arrived now, however long their upload took."""
        return await asyncio.to_thread(self._fill, delivery)

    def _fill(self, delivery: Mapping[str, Path]) -> _FilledFolder:
        folder = self._filling.fresh()
        folder.mkdir(mode=0o700)
        for uid, path in delivery.items():
            place = folder / f"{uid}.dcm"
            os.link(path, place)
            os.utime(place)
            sync(place)
        sync(folder)
        return _FilledFolder(self._root, folder)

    async def lay_out(self, job_id: UUID, folder: Path) -> None:
        await asyncio.to_thread(self._lay_out, self._root / str(job_id), folder)

    def _lay_out(self, inbox: Path, folder: Path) -> None:
        if not inbox.is_dir():
            return
        folder.mkdir(mode=0o700)
        for path in sorted((*inbox.glob("*.dcm"), *inbox.glob("*/*.dcm"))):  # in the order they came
            place = folder / path.name
            place.unlink(missing_ok=True)
            os.link(path, place)

    async def forget(self, job_id: UUID) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / str(job_id), ignore_errors=True)

    async def jobs(self) -> list[UUID]:
        return await asyncio.to_thread(named_in, self._root)


class _FilledFolder:
    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder

    async def give(self, job_id: UUID) -> None:
        await asyncio.to_thread(self._give, self._root / str(job_id))

    def _give(self, inbox: Path) -> None:
        if not inbox.is_dir():
            inbox.mkdir(mode=0o700, exist_ok=True)
            for above in (self._root.parent, self._root):
                sync(above)
        self._folder.rename(inbox / f"{time.time_ns():020}-{self._folder.name}")
        sync(inbox)

    async def discard(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class SharedInbox:
    """In a bucket: whichever machine took a result, any other goes on with it."""

    def __init__(self, store: Store, bucket: Bucket) -> None:
        self._store = store
        self._bucket = bucket

    async def fill(self, delivery: Mapping[str, Path]) -> Filled:
        arrived = [
            Arrival(uuid4(), uid, (await asyncio.to_thread(path.stat)).st_size)
            for uid, path in delivery.items()
        ]
        try:
            await self._bucket.put_all({each.id: delivery[each.sop_instance_uid] for each in arrived})
        except Failure as failure:
            raise OSError(failure.message) from None
        return _FilledObjects(self._store, self._bucket, arrived)

    async def lay_out(self, job_id: UUID, folder: Path) -> None:
        places = asyncio.Semaphore(_FETCHED_AT_ONCE)

        async def fetch(arrived: Arrival, age: float) -> None:
            path = folder / f"{arrived.sop_instance_uid}.dcm"
            async with places:
                await self._bucket.fetch(arrived.id, arrived.size, path)
                await asyncio.to_thread(_make_old, path, age)

        last = {
            arrived.sop_instance_uid: (arrived, age) for arrived, age in await self._store.arrived_for(job_id)
        }
        if last:
            await asyncio.to_thread(folder.mkdir, mode=0o700)
            await asyncio.gather(*(fetch(*each) for each in last.values()))

    async def forget(self, job_id: UUID) -> None:
        """There first: what is still noted is removed again."""
        ids = [arrived.id for arrived, _ in await self._store.arrived_for(job_id)]
        await self._bucket.remove(ids)
        await self._store.forget_arrivals(ids)

    async def jobs(self) -> list[UUID]:
        return await self._store.jobs_with_arrivals()


class _FilledObjects:
    def __init__(self, store: Store, bucket: Bucket, arrived: list[Arrival]) -> None:
        self._store = store
        self._bucket = bucket
        self._arrived = arrived
        self._given = False

    async def give(self, job_id: UUID) -> None:
        self._given = True  # whatever becomes of it: what the database may know stays
        await self._store.add_arrivals([replace(each, job_id=job_id) for each in self._arrived])

    async def discard(self) -> None:
        if not self._given:
            with suppress(Failure):  # what is nobody's is removed later
                await self._bucket.remove([each.id for each in self._arrived])


def _make_old(path: Path, age: float) -> None:
    since = time.time() - age
    os.utime(path, (since, since))


def named_in(root: Path) -> list[UUID]:
    found: list[UUID] = []
    for entry in root.iterdir() if root.exists() else ():
        with suppress(ValueError):  # not ours
            found.append(UUID(entry.name))
    return found
