"""Where things lie until they have a place: nobody sees a half-written one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import weakref
from contextlib import suppress
from itertools import count
from pathlib import Path
from uuid import uuid4


class Staging:
    """A folder below `root` that this process alone uses, and holds for as long as it lives: what lies in one
    that nobody holds is void. Nothing more is taken once less than `least_free` bytes are left on the disk:
    others need it too."""

    def __init__(self, root: Path, least_free: int = 512 * 1024 * 1024) -> None:
        self.path = root / uuid4().hex
        self._least_free = least_free
        self._numbers = count()
        self._held = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        with self._lock:
            if not self._held:
                weakref.finalize(self, os.close, _hold(self.path))
                self._held = True
        for other in self.path.parent.iterdir():
            if other != self.path:
                _sweep(other)

    def fresh(self) -> Path:
        """For a file or a folder that isn't there yet."""
        if not self._held:
            self.prepare()
        return self.path / f"{self.path.name}-{next(self._numbers)}"

    def require_room(self) -> None:
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < self._least_free:
            raise OSError(errno.ENOSPC, "the disk is as good as full")


def _hold(folder: Path) -> int:
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
        if folder.exists():
            return held
        os.close(held)  # swept before it was held


def _sweep(folder: Path) -> None:
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # swept by another meanwhile, or not ours
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)
