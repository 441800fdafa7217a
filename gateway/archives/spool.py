"""Where files of a job lie while it runs: data_dir/spool/<job>, unreadable to other users."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from gateway.contract import NeedsHuman


class Spool:
    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "spool"

    def open(self) -> None:
        """Fails at the start rather than in the middle of the first job."""
        try:
            self._make()
        except OSError as error:
            raise NeedsHuman(
                f"The folder for files of jobs, {self._root}, can't be used: {error.strerror}.",
                "Give data_dir a folder that the gateway's user may write to.",
            ) from None

    def folder(self, job_id: UUID) -> Path:
        self._make()
        folder = self._root / str(job_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def empty(self, job_id: UUID) -> Path:
        """A folder with nothing in it: what a broken-off try has left there is void."""
        self.remove(job_id)
        return self.folder(job_id)

    def remove(self, job_id: UUID) -> None:
        shutil.rmtree(self._root / str(job_id), ignore_errors=True)

    def jobs(self) -> list[UUID]:
        """Whose files lie here."""
        found: list[UUID] = []
        if not self._root.exists():
            return found
        for entry in self._root.iterdir():
            with suppress(ValueError):  # not ours
                found.append(UUID(entry.name))
        return found

    def _make(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
