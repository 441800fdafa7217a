"""Results that a vendor stores with us: durable, and with the job that they belong to, before the vendor
hears of a success.

A result belongs to the job that is with the vendor, and whose study it is of, or whose study or instances it
refers to. If several jobs wait for the same, the oldest gets all that comes until it has its results; then
the next. A result of a study that we never sent is refused; one that merely refers to our study goes to the
job, which is then held: a person decides.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from gateway.archives.inbox import Inbox
from gateway.contract import Header, Sender
from gateway.dicom.arrival import NOT_AUTHORISED, NOT_UNDERSTOOD, OUT_OF_RESOURCES, Reply
from gateway.dicom.part10 import NotDicom
from gateway.dicom.references import references_of
from gateway.jobs.store import DatabaseError, Store

log = structlog.get_logger(__name__)

_PATIENCE = 20.0


class Returned:
    """`senders`: by adapter. Made in the event loop that the store lives in, used from other threads."""

    def __init__(self, store: Store, senders: Mapping[str, Sequence[Sender]], inbox: Inbox) -> None:
        self._store = store
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._adapters: dict[str, list[str]] = {}
        self.senders = [sender for each in senders.values() for sender in each]
        for adapter, each in senders.items():
            for sender in each:
                self._adapters.setdefault(sender.ae_title, []).append(adapter)

    def take(self, calling: str, header: Header, path: Path) -> Reply:
        return self.keep(self._adapters[calling], [(header, path)])[header.sop_instance_uid]

    def keep(self, adapters: list[str], delivery: Sequence[tuple[Header, Path]]) -> dict[str, Reply]:
        """What is answered for each instance. Those of one study are filed together: a job sees all of them
        or none."""
        of_study: dict[str, dict[str, Path]] = defaultdict(dict)
        for header, path in delivery:
            of_study[header.study_instance_uid][header.sop_instance_uid] = path
        replies: dict[str, Reply] = {}
        for study, files in of_study.items():
            reply = self._file(adapters, [study], [], files)
            if reply.status != NOT_AUTHORISED:
                replies |= dict.fromkeys(files, reply)
                continue
            for uid, path in files.items():
                replies[uid] = self._file_by_references(adapters, uid, path)
        refused = sum(reply.status != 0 for reply in replies.values())
        if refused:
            log.warning("refused a vendor's results: no job waits for them", adapters=adapters, count=refused)
        return replies

    def _file_by_references(self, adapters: list[str], uid: str, path: Path) -> Reply:
        try:
            studies, instances = references_of(path)
        except NotDicom:
            return Reply(NOT_UNDERSTOOD, "the instance can't be read")
        if not studies and not instances:
            return _NOBODY_WAITS
        return self._file(adapters, studies, instances, {uid: path})

    def _file(
        self, adapters: list[str], studies: Sequence[str], instances: Sequence[str], files: Mapping[str, Path]
    ) -> Reply:
        asked = asyncio.run_coroutine_threadsafe(self._give(adapters, studies, instances, files), self._loop)
        try:
            return Reply() if asked.result() else _NOBODY_WAITS
        except (DatabaseError, TimeoutError) as trouble:
            log.error("a vendor's results can't be kept now", adapters=adapters, error=type(trouble).__name__)
            return Reply(OUT_OF_RESOURCES, "the database doesn't answer: send it again")

    async def _give(
        self,
        adapters: list[str],
        studies: Sequence[str],
        instances: Sequence[str],
        files: Mapping[str, Path],
    ) -> bool:
        """Whether a job waits for them."""
        filled = await self._inbox.fill(files)
        try:
            async with asyncio.timeout(_PATIENCE), self._store.receiving(adapters, studies, instances) as job:
                if job is not None:
                    await filled.give(job)
                return job is not None
        finally:
            await filled.discard()


_NOBODY_WAITS = Reply(NOT_AUTHORISED, "no job here waits for a result of this study")
