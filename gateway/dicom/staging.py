"""Where things lie until they have a place: nobody sees a half-written one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

# What is under way may need the room that no new work may have; the database and the log need this much.
LEAST_FREE: Final = 128 * 2**20

_LOOK_EVERY = 2**20  # bytes


class Gauge:
    """Of something that is being written: looks now and then whether there is still room."""

    def __init__(self, require_room: Callable[[], None]) -> None:
        self._require_room = require_room
        self._unseen = 0
        require_room()

    def count(self, size: int) -> None:
        self._unseen += size
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self._require_room()


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
        require_room(self.path, self._least_free)


def require_room(place: Path | int, least_free: int) -> None:
    """`place`: a folder on that disk, or an open file."""
    disk = os.statvfs(place)
    if disk.f_bavail * disk.f_frsize < least_free:
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
