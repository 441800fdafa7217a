"""Seals that have left the database: a line each, in a file that is only ever added to, and in the log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from gateway.jobs.records import Seal

_TAIL = 1 << 20
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# As JSON, which others may have put into JSON of theirs, or as a terminal shows it.
_NUMBER = re.compile(r"\bseal\\*\"?[:=]\s?(\d{1,18})\b")
_HASH = re.compile(r"\bhash\\*\"?[:=]\s?\\*\"?([0-9a-f]{64})\b")


class NoSeals(Exception):
    """It isn't such a file, or no longer a whole one: one sentence says which."""


class Escaped(NamedTuple):
    """`seal`: all of it, as the file has it; a line of the log says its hash alone."""

    number: int
    hash: str
    seal: Seal | None


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


def look(path: Path) -> Iterator[Escaped]:
    """Of our file, of the log, or of what a collector made of the log."""
    found = whole = False
    for line, each in _lines(path):
        whole = each is not None or line.endswith("\n")
        if each is not None:
            found = True
            yield each
    if not found:
        raise NoSeals(f"{path} holds no seals")
    if not whole:
        raise NoSeals(f"{path} was cut off in its last line")


def read(path: Path) -> Iterator[tuple[int, Seal]]:
    """Those that stand there whole. What a crash has cut off was written again."""
    for _, each in _lines(path):
        if each is not None and each.seal is not None:
            yield each.number, each.seal


def _lines(path: Path) -> Iterator[tuple[str, Escaped | None]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if (known := _parse(line)) is not None:
                yield line, Escaped(known[0], known[1].hash, known[1])
            else:
                yield line, _parse_log(line)


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


def _parse_log(line: str) -> Escaped | None:
    if "sealed" not in line:
        return None
    plain = _COLOURS.sub("", line)
    number, hashed = _NUMBER.search(plain), _HASH.search(plain)
    return Escaped(int(number[1]), hashed[1], None) if number and hashed else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
