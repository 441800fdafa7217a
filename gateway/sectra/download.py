"""A slide's files into a folder, under names of our own.

Bytes are gathered into large writes which a thread does while the next ones arrive. Files get their names
when all of them are proven whole; until then they end in `.part`, beside a note of how to go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gateway.contract import Retryable
from gateway.dicom.staging import LEAST_FREE, require_room
from gateway.sectra.calls import Caller
from gateway.sectra.files import Begin, Chunk, Mark, read_events

_BATCH_BYTES = 4 << 20
_BATCH_PIECES = 512
_STEP_BYTES = 128 << 10
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}$")


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """`name` is what the server called it, made harmless; it may hold a patient's name."""

    path: Path
    name: str
    media_type: str
    size: int


class _Note(BaseModel):
    """What is kept of a single file that can be resumed."""

    name: str
    media_type: str
    etag: str
    size: int


async def download_files(call: Caller, slide_id: str, folder: Path) -> list[DownloadedFile]:
    """Called again on the same folder after a failure, it goes on where the server allows it, else afresh."""
    try:
        return await _download(call, slide_id, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # others need the room meanwhile
            await asyncio.to_thread(_clear, folder)
        raise Retryable(
            f"the slide's files can't be written: {error.strerror or type(error).__name__}",
            "Free space on the disk that holds data_dir, and check its permissions.",
        ) from error


async def _download(call: Caller, slide_id: str, folder: Path) -> list[DownloadedFile]:
    note = folder / "download.json"
    mark = await asyncio.to_thread(_prepare, folder, note)
    files: list[tuple[Path, DownloadedFile]] = []
    part: _Part | None = None
    try:
        async with aclosing(read_events(call, slide_id, mark)) as events:
            async for event in events:
                if isinstance(event, Chunk) and part is not None:
                    await part.write(event.data)
                elif isinstance(event, Begin):
                    path = _path(folder, len(files) + 1, event.name)
                    part = _Part(_part(path), event)
                    if event.etag and event.size:
                        kept = _Note(
                            name=event.name, media_type=event.media_type, etag=event.etag, size=event.size
                        )
                        await asyncio.to_thread(note.write_text, kept.model_dump_json())
                    await part.open(event.at)
                elif part is not None:
                    await part.finish()
                    files.append((part.path, DownloadedFile(path, part.name, part.media_type, part.size)))
                    part = None
    except Retryable:
        if part is not None:
            await part.finish()  # what has come needn't come again
        raise
    finally:
        if part is not None:
            part.close()
    await asyncio.to_thread(_settle, folder, files, note)
    return [file for _, file in files]


class _Part:
    """One file while it grows. At most one write is under way, and its buffers are the only ones held."""

    def __init__(self, path: Path, begin: Begin) -> None:
        self.path, self.name, self.media_type, self.size = path, begin.name, begin.media_type, 0
        self._descriptor = -1
        self._batch: list[bytes | memoryview] = []
        self._gathered = 0
        self._writing: asyncio.Future[None] | None = None

    async def open(self, at: int) -> None:
        self._descriptor = await asyncio.to_thread(_open_at, self.path, at)
        self.size = at

    async def write(self, data: bytes | memoryview) -> None:
        self._batch.append(data)
        self._gathered += len(data)
        if self._gathered >= _BATCH_BYTES or len(self._batch) >= _BATCH_PIECES:
            await self._flush()

    async def finish(self) -> None:
        await self._flush()
        await self._written()
        self.close()

    def close(self) -> None:
        """A thread may still be writing when the download is given up: the descriptor must outlive it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self._writing is not None and not self._writing.done():
            self._writing.add_done_callback(lambda _: os.close(descriptor))
        else:
            os.close(descriptor)

    async def _flush(self) -> None:
        await self._written()
        if self._batch:
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, _write_all, self._descriptor, self._batch)
            self.size += self._gathered
            self._batch, self._gathered = [], 0

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None


def _open_at(path: Path, at: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(descriptor).st_size < at:
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "what was downloaded before is gone")
    os.ftruncate(descriptor, at)
    os.lseek(descriptor, at, os.SEEK_SET)
    return descriptor


def _write_all(descriptor: int, pieces: list[bytes | memoryview]) -> None:
    """In small steps: for large ones the kernel looks for large pages, at twice the cost (on ext4)."""
    require_room(descriptor, LEAST_FREE)
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view[:_STEP_BYTES]) :]


def _prepare(folder: Path, note: Path) -> Mark | None:
    """Clear away what an earlier try left, but for a file that can be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, kept = None, None
    try:
        found = _Note.model_validate_json(note.read_bytes())
        part = _part(_path(folder, 1, found.name))
        at = part.stat().st_size
        if 0 < at < found.size:
            mark, kept = Mark(**found.model_dump(), at=at), part
    except (FileNotFoundError, ValidationError):
        pass
    if mark is None:
        note.unlink(missing_ok=True)
    for left in folder.glob("*.part"):
        if left != kept:
            left.unlink()
    return mark


def _clear(folder: Path) -> None:
    for left in folder.glob("*.part"):
        left.unlink(missing_ok=True)


def _settle(folder: Path, files: list[tuple[Path, DownloadedFile]], note: Path) -> None:
    for part, file in files:
        part.replace(file.path)
    for left in (note, *folder.glob("*.part")):
        left.unlink(missing_ok=True)


def _path(folder: Path, number: int, name: str) -> Path:
    """Readers of slides go by the suffix, so it is the one thing kept of the server's name on disk."""
    suffix = _SUFFIX.search(name)
    return folder / f"{number:04d}{suffix[0].lower() if suffix else ''}"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
