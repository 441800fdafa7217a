"""Instances that come when their study has been analysed already: they go to the vendor with the rest of it,
which is fetched to where they lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.archives.archive import Archive
from gateway.archives.arrived import Brought
from gateway.archives.lookup import Lookup, Wanted
from gateway.archives.spool import Spool
from gateway.contract import NeedsHuman, Permanent, Retryable
from gateway.dicom.identity import Identity, differences, identity_of
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.dicom.whole import check_whole
from gateway.jobs.records import FETCHING, Job
from gateway.jobs.store import Store
from gateway.kit.folder import put_down


class Latecomers:
    """`brought_by`: what a job came with."""

    def __init__(
        self, store: Store, lookup: Lookup, spool: Spool, brought_by: Callable[[Job], Brought]
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._spool = spool
        self._brought_by = brought_by

    async def complete(self, job: Job, archives: list[str], wanted: Wanted) -> None:
        brought = self._brought_by(job)
        here = await brought.uids()
        before = await self._store.instances_before(job)
        if not here or before <= here:
            return
        try:
            found = await self._lookup.find(archives, wanted, self._store.results_among)
        except Permanent as nowhere:
            raise _incomplete(len(before - here)) from nowhere
        missing = {instance.sop_instance_uid for instance in found.instances} - here
        lost = before - here - missing
        if lost:
            await self._lookup.give_back(found)
            raise _incomplete(len(lost))
        await self._fetch(job, self._lookup.archive(found.archive), missing, brought)

    async def _fetch(self, job: Job, archive: Archive, missing: set[str], brought: Brought) -> None:
        study, folder = job.study_instance_uid or "", self._spool.folder(job.id)
        await self._store.note(job, f"{FETCHING} {archive.name}", {"instances": len(missing)})
        came = await brought.identity()
        got = set()
        async for instance in archive.retrieve(study, missing, folder):
            uid = instance.header.sop_instance_uid
            if uid in missing:
                path = folder / f"{uid}.part"
                await put_down(instance, path)
                await asyncio.to_thread(_check, path, came)
                await brought.add(uid, path)
                got.add(uid)
        if got != missing:
            raise Retryable(
                f"the archive {archive.name} sent {len(got)} of the {len(missing)} instances asked for",
                "If this goes on, have the archive check the study.",
            )


def _check(path: Path, came: Identity) -> None:
    try:
        check_whole(path)
        with readable():
            fetched = identity_of(read_before(path))
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


def _incomplete(count: int) -> Retryable:
    return Retryable(
        f"only part of the study was sent to us: {count} instances that it had before came neither now"
        " nor from an archive",
        "Have the whole study sent again, or archived.",
    )
