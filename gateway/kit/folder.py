"""The job's work folder: instances on their way, and notes that save the next try some work. It is gone when
another machine takes over, so that nothing in it may decide anything.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.contract import Instance, Retryable
from gateway.dicom.staging import LEAST_FREE, Gauge, require_room

_PIECE = 2**20


@contextmanager
def writing() -> Iterator[None]:
    """What goes wrong with the disk is one of our failures."""
    try:
        yield
    except OSError as error:
        raise Retryable(
            f"the job's work folder can't be written ({errno.errorcode.get(error.errno or 0, 'unknown')})",
            "Make room below `data_dir`, or mend its rights.",
            uncertain=True,  # what was put down before may have been sent already
        ) from None


def gauge(folder: Path) -> Gauge:
    """For what may be large."""
    return Gauge(lambda: require_room(folder, LEAST_FREE))


def note(path: Path, said: Mapping[str, Any]) -> None:
    """Readable by us alone, whole or not at all."""
    fresh = path.with_suffix(".new")
    with writing():
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(said))
        fresh.replace(path)


def recall(path: Path) -> dict[str, Any]:
    """What was noted; nothing if there is none, or none that can be read."""
    try:
        noted = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


async def put_down(instance: Instance, path: Path) -> None:
    """Whole, or nothing of it."""
    try:
        with writing(), await asyncio.to_thread(path.open, "wb") as file:
            room = gauge(path.parent)
            async for chunk in instance.chunks():
                room.count(len(chunk))
                await asyncio.to_thread(file.write, chunk)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise


async def read(path: Path, size: int) -> AsyncGenerator[bytes | memoryview, None]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while size and (data := await asyncio.to_thread(file.read, min(size, _PIECE))):
            size -= len(data)
            yield data
