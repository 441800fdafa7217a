"""Asking peers how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog

from gateway.contract import Failure, Health

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[Health]]


class Checkups:
    """`check_of`: how one of them is asked, if it can be."""

    def __init__(self, check_of: Callable[[str], Check | None], answers_within: float) -> None:
        self._check_of = check_of
        self._answers_within = answers_within
        self._asked: dict[str, asyncio.Task[Health]] = {}

    @property
    def under_way(self) -> Collection[asyncio.Task[Health]]:
        return self._asked.values()

    async def ask(self, peer: str) -> Health:
        """Whoever asks at the same time hears the same. That it was well before he asked is no answer to him:
        it may have failed since, and a job would spend its tries on that."""
        earlier = self._asked.get(peer)
        if earlier is not None:
            health = await asyncio.shield(earlier)
            if not health.ok:
                return health
        if self._asked.get(peer) in (None, earlier):
            asking = self._asked[peer] = asyncio.create_task(self._check(peer))
            asking.add_done_callback(partial(self._forget, peer))
        return await asyncio.shield(self._asked[peer])

    def _forget(self, peer: str, asked: asyncio.Task[Health]) -> None:
        """Also if whoever asked was cancelled meanwhile: nobody is to hear later how it was then."""
        if self._asked.get(peer) is asked:
            del self._asked[peer]

    async def _check(self, peer: str) -> Health:
        check = self._check_of(peer)
        if check is None:
            return Health(True, "nobody can ask it")
        try:
            async with asyncio.timeout(self._answers_within):
                return await check()
        except TimeoutError:
            return Health(False, f"no answer within {self._answers_within:g} s")
        except Failure as failure:
            return Health.ill(failure)
        except Exception as bug:
            log.error("a check broke", peer=peer, exc_info=bug)
            return Health(False, f"its check broke ({type(bug).__name__})")
