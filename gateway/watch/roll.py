"""Says every now and then that this process is there, so that those who look see which replicas there are.
One that is gone without a word is silent: it is told, and forgotten after an hour, or once another runs on
its machine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

from gateway import __version__
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.replicas import Replica, Sign
from gateway.loops import Loop, beside

_EVERY = 10.0
_FAREWELL = 3.0  # seconds; whoever stops waits no longer for a database that is away


class Roll:
    """`does`: what this process does. `worker`: its number among workers, as long as it is one."""

    def __init__(self, store: Store, does: str, worker: Callable[[], int]) -> None:
        self._store = store
        self._worker = worker
        self._sign = Sign(uuid4(), socket.gethostname(), os.getpid(), does, __version__, datetime.now(UTC))

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        try:
            async with beside(Loop("roll").run(self.look, pause=_EVERY)):
                yield
        finally:
            with suppress(DatabaseError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._store.forget_replicas([self._sign.id])

    async def look(self) -> None:
        await self._store.beat(self._sign, self._worker())
        known = await self._store.replicas()
        await self._store.forget_replicas([each.id for each in known if self._outlived(each)])

    def _outlived(self, other: Replica) -> bool:
        """It was on this machine, and its process isn't any more."""
        if not other.silent or other.host != self._sign.host:
            return False
        return other.process == self._sign.process or not _is_there(other.process)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
