"""The database is away: told by every channel without it, and so is the all-clear. What was told is kept in a
file, so that those who share a data_dir tell it once, and a restart in between loses no all-clear. Replicas
with a data_dir each tell it each: there is nothing left by which they could agree."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog

from gateway.ailments import clock
from gateway.contract import Failure
from gateway.jobs.store import DatabaseError, Store
from gateway.loops import Loop
from gateway.watch.channels import Channels, Message, how_long, name_telling

log = structlog.get_logger(__name__)

_LOOK = 2.0
_ANSWERS_WITHIN = 5.0
_IS_NEWS_AFTER = 8.0  # a restart of PostgreSQL is none
_FIRST, _MOST = 5.0, 300.0
_ADVICE = (
    "See whether its server runs, hangs or has a full disk, and start it; or mend the way to it"
    " (database_url). The gateway goes on by itself within seconds."
)


class Outage:
    def __init__(
        self, store: Store, channels: Channels, data_dir: Path, *, remind: float | None = None
    ) -> None:
        self._store = store
        self._channels = channels
        self._file = data_dir / "alerts" / "database.json"
        self._remind = remind
        self._away_since: datetime | None = None
        self._well_since = time.monotonic()
        self._again_at, self._pause = 0.0, _FIRST

    def well_for(self) -> float:
        return time.monotonic() - self._well_since

    async def run(self) -> None:
        await Loop("outage", first=_LOOK, most=_FIRST).run(self.look, pause=_LOOK)

    async def look(self) -> None:
        if await self._answers():
            self._away_since = None
            if self._file.exists():
                await self._tell("all-clear")
            return
        now = datetime.now(UTC)
        self._well_since = time.monotonic()
        self._away_since = self._away_since or now
        if (now - self._away_since).total_seconds() >= _IS_NEWS_AFTER:
            await self._tell("alert")

    async def _answers(self) -> bool:
        if self._store.has_answered(within=_LOOK):
            return True
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                await self._store.ping()
        except (DatabaseError, OSError, TimeoutError):
            return False
        return True

    async def _tell(self, kind: Literal["alert", "all-clear"]) -> None:
        if time.monotonic() < self._again_at:
            return
        with self._holding() as held:
            if not held:
                return  # whoever shares our data_dir does
            broken = await self._tell_held(kind)
        self._pause = _FIRST if broken is None else min(_MOST, 2 * self._pause)
        self._again_at = 0.0 if broken is None else time.monotonic() + self._pause
        if broken is not None:
            raise broken

    async def _tell_held(self, kind: Literal["alert", "reminder", "all-clear"]) -> Failure | None:
        known = self._read()
        if known is None:
            if kind == "all-clear":
                return None
            known = {"since": (self._away_since or datetime.now(UTC)).isoformat(), "told": []}
            log.error("alert", cause="database", sentence=_sentence(known), advice=_ADVICE)
        if kind == "alert" and self._is_to_remind(known):
            kind = "reminder"
            known |= {"told": [each for each in known["told"] if not each.startswith("reminder:")]}
        message = _message(known, kind)

        async def note(mark: str) -> None:
            known["told"].append(mark)
            self._write(known)

        self._write(known)
        broken = await self._channels.tell(message, known["told"], note)
        if broken is None and kind == "all-clear":
            log.info("all-clear", cause="database", sentence=message.sentence)
            self._file.unlink(missing_ok=True)
        elif broken is None and (kind == "reminder" or "reminded" not in known):
            self._write(known | {"reminded": datetime.now(UTC).isoformat()})
        return broken

    def _is_to_remind(self, known: dict[str, Any]) -> bool:
        if self._remind is None or "reminded" not in known:
            return False
        return (datetime.now(UTC) - datetime.fromisoformat(known["reminded"])).total_seconds() > self._remind

    # -- the file -------------------------------------------------------------------------------------

    @contextmanager
    def _holding(self) -> Iterator[bool]:
        """Its right, of one process at a time; it ends with the process."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(lock)

    def _read(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return known

    def _write(self, known: dict[str, Any]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(known))
        fresh.replace(self._file)


def _sentence(known: dict[str, Any]) -> str:
    since = clock(datetime.fromisoformat(known["since"]))
    return f"the database doesn't answer since {since}; nothing is taken in meanwhile, nothing is lost"


def _message(known: dict[str, Any], kind: Literal["alert", "reminder", "all-clear"]) -> Message:
    since = datetime.fromisoformat(known["since"])
    now = datetime.now(UTC)
    over = kind == "all-clear"
    sentence = _sentence(known)
    if over:
        over_after = f"over after {how_long(since, now)}"
        sentence = f"{over_after}: the database answers again; everything goes on by itself"
    id = int(since.timestamp())
    before = datetime.fromisoformat(known["reminded"]) if kind == "reminder" else None
    return Message(
        id,
        kind,
        "database",
        sentence,
        "" if over else _ADVICE,
        known["since"],
        now.isoformat() if over else None,
        0,
        telling=name_telling(id, kind, before),
    )
