"""Instances that come when their study has been analysed already: they go to the vendor with the rest of it,
which is fetched to where they lie."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.archives.archive import Archive
from gateway.archives.arrived import ARRIVED_IN, incoming_root
from gateway.archives.awaited import file_of
from gateway.archives.files import sync
from gateway.archives.lookup import Lookup, Wanted
from gateway.archives.spool import Spool
from gateway.contract import Instance, NeedsHuman, Permanent, Retryable
from gateway.dicom.identity import differences, identity_of
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.dicom.whole import check_whole
from gateway.jobs.records import FETCHING, Job
from gateway.jobs.store import Store
from gateway.kit.folder import put_down


class Latecomers:
    def __init__(self, store: Store, lookup: Lookup, spool: Spool, data_dir: Path) -> None:
        self._store = store
        self._lookup = lookup
        self._spool = spool
        self._root = incoming_root(data_dir)

    async def complete(self, job: Job, archives: list[str], wanted: Wanted) -> None:
        folder = self._root / job.application / str((job.context or {}).get(ARRIVED_IN))
        here = {path.stem: path for path in await asyncio.to_thread(lambda: list(folder.glob("*.dcm")))}
        before = await self._store.instances_before(job)
        if not here or before <= here.keys():
            return
        try:
            found = await self._lookup.find(archives, wanted, self._store.results_among)
        except Permanent as nowhere:
            raise _incomplete(len(before - here.keys())) from nowhere
        missing = {instance.sop_instance_uid for instance in found.instances} - here.keys()
        lost = before - here.keys() - missing
        if lost:
            await self._lookup.give_back(found)
            raise _incomplete(len(lost))
        await self._fetch(job, self._lookup.archive(found.archive), missing, next(iter(here.values())))

    async def _fetch(self, job: Job, archive: Archive, missing: set[str], arrived: Path) -> None:
        study = job.study_instance_uid or ""
        await self._store.note(job, f"{FETCHING} {archive.name}", {"instances": len(missing)})
        got = set()
        async for instance in archive.retrieve(study, missing, self._spool.folder(job.id)):
            uid = instance.header.sop_instance_uid
            if uid in missing:
                await _keep(instance, file_of(arrived.parent, uid), arrived)
                got.add(uid)
        if got != missing:
            raise Retryable(
                f"the archive {archive.name} sent {len(got)} of the {len(missing)} instances asked for",
                "If this goes on, have the archive check the study.",
            )


async def _keep(instance: Instance, place: Path, arrived: Path) -> None:
    path = place.with_suffix(".part")
    await put_down(instance, path)
    await asyncio.to_thread(_place, path, place, arrived)


def _place(path: Path, place: Path, arrived: Path) -> None:
    try:
        check_whole(path)
        with readable():
            fetched, came = (identity_of(read_before(each)) for each in (path, arrived))
    except NotDicom:
        raise Retryable(
            "an instance of the study came cut off from the archive", "Have the archive check the study."
        ) from None
    unlike = differences(fetched, came)
    if unlike:
        raise NeedsHuman(
            f"what was sent to us of the study and what an archive has of it differ: {', '.join(unlike)}",
            "Nothing is sent. Find out which is right, have the other corrected, then resume the job.",
        )
    sync(path)
    path.rename(place)


def _incomplete(count: int) -> Retryable:
    return Retryable(
        f"only part of the study was sent to us: {count} instances that it had before came neither now"
        " nor from an archive",
        "Have the whole study sent again, or archived.",
    )
