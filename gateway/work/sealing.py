"""Seals on the histories and the audit, and their way out of the database, into the log and a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gateway.jobs import escaped
from gateway.jobs.signing import SealKey
from gateway.jobs.store import Store
from gateway.loops import Loop
from gateway.settings.keys import seal_key
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

_PAUSE = 60.0  # what has just been written could be rewritten unseen for so long
_PATIENCE = 90.0  # with a transaction that goes on writing


def seals_file(data_dir: Path) -> Path:
    return data_dir / "seals.log"


class Sealing:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._file = seals_file(settings.data_dir)
        self._key: SealKey | None = None

    async def run(self) -> None:
        await Loop("sealing").run(self.seal, pause=_PAUSE)

    async def seal(self) -> int:
        """All that is committed by now; of several replicas one does it. Returns how many seals it took."""
        if self._key is None:
            self._key = SealKey(await asyncio.to_thread(seal_key, self._settings))
        await self._catch_up()
        settled = await self._store.settled(_PATIENCE)
        if settled is None:
            log.warning("sealing is put off: somebody's transaction has been writing for too long")
            return 0
        made = 0
        while (sealed := await self._store.seal(settled, self._key.sign)) is not None:
            number, seal = sealed
            await asyncio.to_thread(escaped.write, self._file, number, seal)
            made += 1
            log.info(
                "sealed",
                seal=number,
                hash=seal.hash,
                signature=seal.signature,
                key=seal.signed_by,
                jobs=len(seal.heads),
                last_event=seal.last_event_id,
                last_audit=seal.last_audit_id,
            )
        return made

    async def _catch_up(self) -> None:
        """With what another replica sealed, or this one before a crash: each file has all of them."""
        last = await asyncio.to_thread(escaped.last, self._file)
        number = 0
        if last is not None:
            number, seal = last
            if await self._store.seal_hash(number) != seal.hash:
                log.error(
                    "a seal that left the database isn't in it any more: its history was changed, or an older"
                    " state of it restored",
                    seal=number,
                    file=str(self._file),
                )
        async for missing, seal in self._store.seals(after=number):
            await asyncio.to_thread(escaped.write, self._file, missing, seal)
