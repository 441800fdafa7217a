"""Jobs held since a peer was away, or didn't let us in, go on by themselves once it is well again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from gateway.contract import Failure, Health
from gateway.jobs.store import Store
from gateway.loops import Loop

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[Health]]
_EVERY = 10.0
_ANSWERS_WITHIN = 30.0


class Recovery:
    """`checks`: by a peer's name, whether it is well. One that can't be asked counts as well: its jobs find
    out."""

    def __init__(
        self, store: Store, checks: Mapping[str, Check], bars: Callable[[str], bool] | None = None
    ) -> None:
        """`bars`: whether a peer is known to be away, and is looked at by somebody already."""
        self._store = store
        self._bars = bars or (lambda _: False)
        self._checks = checks

    async def run(self) -> None:
        await Loop("recovery", most=_EVERY).run(self.look, pause=_EVERY)

    async def look(self) -> int:
        """Each peer on its own: one that doesn't answer delays no other. How many jobs go on."""
        return sum(await asyncio.gather(*map(self._look_at, await self._store.holding_peers())))

    async def _look_at(self, peer: str) -> int:
        if self._bars(peer) or not await self._is_well(peer):
            return 0
        resumed = await self._store.recover(peer)
        if resumed:
            log.info("a peer is well again; the jobs held for it go on", peer=peer, jobs=resumed)
        return resumed

    async def _is_well(self, peer: str) -> bool:
        check = self._checks.get(peer)
        if check is None:
            return True
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                return (await check()).ok
        except (Failure, TimeoutError):
            return False
        except Exception as bug:
            log.error("a check broke", peer=peer, exc_info=bug)
            return False
