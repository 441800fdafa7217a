"""Studies that are sent to us for an application: on the disk before the sender hears of a success, and made
into a job once they have been quiet for as long as the application says.

    incoming/<application>/<study>/         instances as they arrive; an upload of several is a folder in it
    incoming/<application>/<study>@<key>/   quiet, and closed: the archive of the one job of that key
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import structlog

from gateway.archives.arrived import ARRIVED_IN, incoming_root
from gateway.archives.awaited import file_of
from gateway.archives.files import sync
from gateway.contract import Header
from gateway.jobs.records import Job, NewJob, Origin
from gateway.jobs.states import ALIVE
from gateway.jobs.store import DatabaseError, Store
from gateway.loops import Loop
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

CALLER = "dimse"  # whose idempotency keys the deliveries are
_LOOK = 0.25
_LOOK_ROUND = 5.0  # at what another process with this data_dir has closed, and didn't live to begin
_AT_ONCE = 500
_REST = 5.0  # after trouble with the database
KEEP = 24 * 3600.0  # for those who try a failed job again


class Taking(Protocol):
    """Where doors bring what is sent to us. OSError, if it can't be kept."""

    def adopt(self, settings: Settings) -> None:
        """Those in force from now on; what has arrived stays."""
        ...

    def keep(self, application: str, header: Header, path: Path) -> None:
        """Called from other threads; afterwards the instance is durable."""
        ...

    def keep_upload(self, application: str, upload: Path, files: Collection[tuple[Header, Path]]) -> None:
        """The files below its folder, one for each study: all of them are kept, or none is."""
        ...

    async def run(self) -> None:
        """Makes jobs of it, until it is cancelled."""
        ...


class Incoming:
    def __init__(self, settings: Settings, store: Store, *, clean_every: float = 30.0) -> None:
        self._settings = settings
        self._store = store
        self._clean_every = clean_every
        self._root = incoming_root(settings.data_dir)
        self._last: dict[Path, float] = {}
        self._jobs: dict[Path, UUID] = {}
        self._lock = threading.Lock()
        self._closed: set[Path] = set()  # and have no job yet
        self._looked_round = -_LOOK_ROUND
        self._recalled = False
        self._cleaned = time.monotonic()
        self._running: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()

    def adopt(self, settings: Settings) -> None:
        """Those in force from now on; what has arrived stays."""
        self._settings = settings

    def keep(self, application: str, header: Header, path: Path) -> None:
        """Called from other threads; afterwards the instance survives a power cut."""
        opened = [os.open(path, os.O_RDONLY)]
        try:
            with self._lock:
                folder = self._open(application, header.study_instance_uid)
                path.replace(file_of(folder, header.sop_instance_uid))
                self._last[folder] = time.monotonic()
                opened.append(os.open(folder, os.O_RDONLY))
            self._wake()
            # The names first: most file systems then write both in one go. Outside of the lock, others go on.
            for descriptor in opened:
                os.fsync(descriptor)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def keep_upload(
        self,
        application: str,
        upload: Path,
        files: Collection[tuple[Header, Path]],  # noqa: ARG002 on the disk already, each with its study
    ) -> None:
        studies = sorted(upload.iterdir())
        for study in studies:
            sync(study)
        placed: list[tuple[Path, Path]] = []
        with self._lock:
            try:
                for study in studies:
                    place = self._open(application, study.name) / str(time.time_ns())
                    study.rename(place)
                    placed.append((study, place))
                for _, place in placed:
                    sync(place.parent)
            except OSError:
                for study, place in placed:
                    place.rename(study)
                raise
            for _, place in placed:
                self._last[place.parent] = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        if self._running is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._running.call_soon_threadsafe(self._arrived.set)

    def _open(self, application: str, study: str) -> Path:
        folder = self._root / application / study
        if not folder.is_dir():
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            for above in (self._root, folder.parent):
                sync(above)
        return folder

    def folder_of(self, job: Job) -> Path | None:
        """Where the study lies that the job came with."""
        named = (job.context or {}).get(ARRIVED_IN) if job.origin is Origin.SENT else None
        return self._root / job.application / named if isinstance(named, str) else None

    async def run(self) -> None:
        """Until it is cancelled."""
        self._running = asyncio.get_running_loop()
        await Loop("incoming studies", most=_REST).run(self._look, pause=_LOOK)

    async def _look(self) -> None:
        self._arrived.clear()
        if not self._recalled:
            await asyncio.to_thread(self._recall)
            self._recalled = True
        if self._last or time.monotonic() - self._looked_round > _LOOK_ROUND:
            self._closed |= set(await asyncio.to_thread(self._close))
        fresh = sorted(self._closed - self._jobs.keys())
        self._closed -= self._jobs.keys()
        for start in range(0, len(fresh), _AT_ONCE):
            await self._begin_all(fresh[start : start + _AT_ONCE])
        if time.monotonic() - self._cleaned > self._clean_every:
            await self._clean()
            self._cleaned = time.monotonic()
        if not self._last and not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_ROUND, self._clean_every)):
                    await self._arrived.wait()

    def _recall(self) -> None:
        """What was here before we started has been quiet since its youngest instance came."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        now, wall = time.monotonic(), time.time()
        for folder in self._root.glob("[!.]*/*"):  # what lies in .arriving is nobody's yet
            if "@" not in folder.name:
                with self._lock, suppress(FileNotFoundError):  # another process has closed it
                    self._last.setdefault(folder, now - max(0.0, wall - folder.stat().st_mtime))

    def _close(self) -> list[Path]:
        """Those that are closed now to what comes later; from time to time all that are."""
        closed: list[Path] = []
        with self._lock:
            for folder, last in list(self._last.items()):
                found = self._settings.application(folder.parent.name)
                if found is None or time.monotonic() - last < found[1].settle:
                    continue
                with suppress(FileNotFoundError):  # another process with this data_dir has closed it
                    if 0 <= time.time() - folder.stat().st_mtime < found[1].settle:
                        continue  # or is writing to it
                    closed.append(folder.rename(folder.with_name(f"{folder.name}@{uuid4()}")))
                del self._last[folder]
        if time.monotonic() - self._looked_round > _LOOK_ROUND:
            self._looked_round = time.monotonic()
            return list(self._root.glob("*/*@*"))
        return closed

    async def _begin_all(self, folders: Sequence[Path]) -> None:
        """One that makes trouble keeps no other waiting."""
        studies = {folder.name.partition("@")[0] for folder in folders}
        sent: dict[tuple[str, str | None], list[Job]] = defaultdict(list)
        for job in await self._store.sent_of(studies):
            sent[job.application, job.study_instance_uid].append(job)
        trouble: Exception | None = None
        for folder in folders:
            study = folder.name.partition("@")[0]
            try:
                await self._begin(folder, sent[folder.parent.name, study])
            except DatabaseError:
                raise
            except Exception as bug:  # noqa: BLE001 - told by the loop
                trouble = trouble or bug
            else:
                self._closed.discard(folder)
        if trouble is not None:
            raise trouble

    async def _begin(self, folder: Path, sent: Sequence[Job]) -> None:
        name = folder.parent.name
        study, _, key = folder.name.partition("@")
        found = self._settings.application(name)
        if found is None:
            return  # it stays; with the application it goes on
        department, application = found
        if not await asyncio.to_thread(_unpack, folder):
            return
        earlier = []
        for job in sent:
            other = self.folder_of(job)
            if other == folder:
                self._jobs[folder] = job.id
                return
            if other is not None:
                earlier.append((job, other))
        for job, other in earlier:
            if job.state in ALIVE and await asyncio.to_thread(_holds, other, folder):
                await asyncio.to_thread(shutil.rmtree, folder)
                log.info("a study was sent again; its job goes on", job=str(job.id))
                return
        await asyncio.to_thread(_complete, folder, [other for _, other in earlier])
        new = NewJob(
            department=department,
            application=name,
            adapter=application.adapter,
            origin=Origin.SENT,
            priority=application.priority,
            study_instance_uid=study,
            context={ARRIVED_IN: folder.name},
            caller=CALLER,
            idempotency_key=key,
        )
        job, fresh = await self._store.create(new)
        self._jobs[folder] = job.id
        if fresh:
            log.info("a study was sent to us", job=str(job.id), application=name)

    async def _clean(self) -> None:
        """A job that has failed may be tried again for a while."""
        needed = await self._store.needed_of(self._jobs.values(), KEEP)
        for folder, job_id in list(self._jobs.items()):
            if job_id not in needed:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                del self._jobs[folder]


def _unpack(folder: Path) -> bool:
    """Whether there is anything in it; the uploads in it are now closed with it."""
    for path in sorted(folder.glob("*/*.dcm")):  # in the order they came
        path.replace(folder / path.name)
    for upload in folder.iterdir():
        if upload.is_dir():
            upload.rmdir()
    empty = not any(folder.iterdir())  # we died before its first instance came
    if empty:
        folder.rmdir()
    return not empty


def _holds(folder: Path, later: Path) -> bool:
    return {path.name for path in later.glob("*.dcm")} <= {path.name for path in folder.glob("*.dcm")}


def _complete(folder: Path, earlier: list[Path]) -> None:
    """Late instances come with those that came before: a vendor wants the study whole."""
    for other in earlier:
        for path in other.glob("*.dcm"):
            if not (folder / path.name).exists():
                os.link(path, folder / path.name)
