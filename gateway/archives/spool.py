"""Where files of a job lie while it runs, unreadable to other users:

spool/<job>/    what a step makes; gone with it
inbox/<job>/    what the vendor stored with us for it, unless that lies in a bucket; there until the job ends
slides/<job>/   the files of its slide, where Sectra is the archive; there until the job ends
inbox/.filling/ deliveries that are being filled, and what is no job's: void once its process has died
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from uuid import UUID, uuid4

from gateway.archives.files import sync
from gateway.archives.inbox import FolderInbox, Inbox, named_in
from gateway.contract import INBOX, NeedsHuman
from gateway.dicom.staging import Staging


class Spool:
    def __init__(self, data_dir: Path, least_free: int = 0, inbox: Inbox | None = None) -> None:
        """`inbox`: if vendors' results lie elsewhere."""
        self._root = data_dir / "spool"
        self._slides = data_dir / "slides"
        self._filling = Staging(data_dir / "inbox" / ".filling")
        self.inbox = inbox or FolderInbox(data_dir / "inbox", self._filling)
        self._least_free = least_free

    def open(self) -> None:
        """Fails at the start rather than in the middle of the first job."""
        try:
            self._make()
            self._filling.prepare()
        except OSError as error:
            raise NeedsHuman(
                f"the folder for files of jobs, {self._root}, can't be used: {error.strerror}",
                "Give data_dir a folder that the gateway's user may write to.",
            ) from None

    def claim(self, installation: UUID) -> None:
        """What lies in data_dir is of one database; a gateway with another one would make jobs of it too."""
        mark = self._root.with_name("installation")
        fresh = mark.with_name(f".installation-{uuid4()}")
        fresh.write_text(str(installation))
        sync(fresh)
        try:
            os.link(fresh, mark)
            sync(mark.parent)
        except FileExistsError:
            if mark.read_text() != str(installation):
                raise NeedsHuman(
                    f"the data_dir {mark.parent} belongs to a gateway with another database",
                    "Give this one a data_dir of its own. If that database is gone for good, see whether"
                    f" anything in the folder is still needed, then remove {mark}.",
                ) from None
        finally:
            fresh.unlink()

    @property
    def is_full(self) -> bool:
        """No new work then: what is under way may still need the rest."""
        self._make()
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize < self._least_free

    def folder(self, job_id: UUID) -> Path:
        folder = self._root / str(job_id)
        if not folder.is_dir():
            self._make()
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def aside(self) -> Path:
        """For work beside that of a job, whose own folder may be in use, or gone."""
        folder = self._filling.fresh()
        folder.mkdir(mode=0o700)
        return folder

    def slide(self, job_id: UUID) -> Path:
        self._slides.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._slides / str(job_id)

    def forget_slide(self, job_id: UUID) -> None:
        shutil.rmtree(self._slides / str(job_id), ignore_errors=True)

    async def empty(self, job_id: UUID) -> Path:
        """A folder with nothing in it but the inbox: what a broken-off try has left there is void."""

        def make() -> Path:
            self.remove(job_id)
            return self.folder(job_id)

        folder = await asyncio.to_thread(make)
        await self.inbox.lay_out(job_id, folder / INBOX)
        return folder

    def remove(self, job_id: UUID) -> None:
        shutil.rmtree(self._root / str(job_id), ignore_errors=True)

    async def forget(self, job_id: UUID) -> None:
        """The job has ended."""
        await asyncio.to_thread(self.remove, job_id)
        await asyncio.to_thread(self.forget_slide, job_id)
        await self.inbox.forget(job_id)

    async def jobs(self) -> list[UUID]:
        """Whose files lie here."""
        roots = self._root, self._slides
        lying = await asyncio.to_thread(lambda: [job_id for root in roots for job_id in named_in(root)])
        return [*lying, *await self.inbox.jobs()]

    def _make(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
