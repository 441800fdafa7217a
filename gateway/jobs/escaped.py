"""Seals that have left the database: a line each, in a file that is only ever added to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from gateway.jobs.records import Seal

_TAIL = 1 << 20


class NoSeals(Exception):
    """It isn't such a file: one sentence says which."""


def write(path: Path, number: int, seal: Seal) -> None:
    """On disk when this returns. What a crash has cut off before stays a line of its own."""
    line = json.dumps({"seal": number, **asdict(seal), "at": seal.at.isoformat()}) + "\n"
    fresh = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (("\n" if cut_off else "") + line).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        _sync_folder(path.parent)


def read(path: Path) -> Iterator[tuple[int, Seal]]:
    """Without the lines that were cut off: such a seal was written again."""
    whole = cut_off = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            seal = _parse(line)
            if seal is None:
                cut_off += 1
            else:
                whole += 1
                yield seal
    if cut_off and not whole:
        raise NoSeals(f"{path} holds no seals")


def last(path: Path) -> tuple[int, Seal] | None:
    """The newest whole one."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    newest = next(filter(None, (_parse(line.decode(errors="replace")) for line in reversed(lines))), None)
    if newest is None and size > _TAIL:  # one of an older release may be larger than that
        for newest in read(path):  # noqa: B007
            pass
    return newest


def _parse(line: str) -> tuple[int, Seal] | None:
    try:
        given = json.loads(line)
        number = int(given.pop("seal"))
        return number, Seal(**{**given, "at": datetime.fromisoformat(given["at"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
