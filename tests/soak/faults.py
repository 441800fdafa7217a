"""Does what the plan says to the gateway and all around it, and takes it back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import psycopg

from tests.soak.hospital import LEAST_FREE, Hospital
from tests.soak.ledger import Ledger
from tests.soak.plan import Fault
from tests.soak.postgres import CONNECTIONS
from tests.soak.replica import FAKETIME, Replica

_LATE = 8.0  # a fault may begin later than planned, on a busy machine
_UPLOAD_WITHIN = 6.0
_LONG_START = 120.0  # what was away at its beginning may be back at its end
_LONG = "SELECT count(*), pg_sleep(%s) FROM jobs"
_EVERY_GATEWAY = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"
_SEVERAL_JOBS = "SELECT id FROM jobs ORDER BY updated_at DESC LIMIT 5 FOR UPDATE"


class Faults:
    def __init__(self, house: Hospital, ledger: Ledger) -> None:
        self._house = house
        self._ledger = ledger
        self._targets: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def do(self, fault: Fault) -> None:
        """From its beginning to its end; afterwards all is as before."""
        act = self._find(fault)
        if isinstance(act, str):
            self._ledger.skipped.append(f"{fault.target} {fault.what}: {act}")
            return
        try:
            async with asyncio.timeout(_LATE):
                await self._targets[fault.target].acquire()
        except TimeoutError:
            self._ledger.skipped.append(f"{fault.target} {fault.what}: it was still amid the fault before")
            return
        try:
            with self._ledger.disturbing(fault), suppress(psycopg.Error):  # of our own connection
                await act(fault)
        finally:
            self._targets[fault.target].release()

    def _find(self, fault: Fault) -> Callable[[Fault], Awaitable[None]] | str:
        if fault.target == "disk":
            return self._fill if self._house.has_disk else "no disk of its own can be mounted here"
        if fault.target == "database":
            return self._named(fault)
        if fault.target.startswith("replica"):
            if fault.what == "clock" and FAKETIME is None:
                return "faketime isn't installed"
            return self._named(fault)
        return self._disturb

    def _named(self, fault: Fault) -> Callable[[Fault], Awaitable[None]]:
        found: Callable[[Fault], Awaitable[None]] = getattr(self, f"_{fault.what}")
        return found

    def _replica(self, fault: Fault) -> Replica:
        return self._house.replicas[int(fault.target.partition("-")[2])]

    async def _disturb(self, fault: Fault) -> None:
        line = self._house.lines[fault.target]
        await line.disturb(fault.what, fault.number)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await line.heal()

    # -- processes ------------------------------------------------------------------------------------

    async def _kill(self, fault: Fault) -> None:
        replica = self._replica(fault)
        async with self._uploading(fault):
            await replica.kill()
        await asyncio.sleep(fault.seconds)
        await self._start(replica)

    async def _stop(self, fault: Fault) -> None:
        replica = self._replica(fault)
        async with self._uploading(fault):
            await replica.stop()
        await asyncio.sleep(fault.seconds)
        await self._start(replica)

    @asynccontextmanager
    async def _uploading(self, fault: Fault) -> AsyncIterator[None]:
        """Every second time the moment isn't any, but amid an upload, which is slowed down for that."""
        line, target = self._house.lines["milvue"], self._targets["milvue"]
        if fault.number % 2 or target.locked():
            yield
            return
        async with target:
            await line.disturb("slow", fault.number)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_UPLOAD_WITHIN):
                        while not line.is_uploading:
                            await asyncio.sleep(0.05)
                yield
            finally:
                await line.heal()

    async def _freeze(self, fault: Fault) -> None:
        replica = self._replica(fault)
        replica.freeze()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            replica.thaw()

    async def _clock(self, fault: Fault) -> None:
        """It jumps while the gateway runs, and back."""
        replica = self._replica(fault)
        await replica.stop()
        await self._start(replica, clock=True)
        replica.set_clock(fault.number)
        await asyncio.sleep(fault.seconds)
        replica.set_clock(0)
        await asyncio.sleep(1)
        await replica.stop()
        await self._start(replica)

    async def _start(self, replica: Replica, *, clock: bool = False) -> None:
        """Again and again, as systemd does, while the database is away."""
        while True:
            await self._house.start(replica, clock=clock)
            try:
                await replica.listen()
            except (RuntimeError, TimeoutError):
                await replica.kill()
                now = time.time()
                if not self._ledger.was_disturbed(now - _LONG_START, now, "database", "disk"):
                    replica.exits.append(f"{replica.name} didn't start: {replica.last_words}")
                await asyncio.sleep(1)
            else:
                return

    async def upgrade(self, replica: Replica) -> None:
        async with self._targets[replica.name]:
            await replica.stop()
            self._house.is_upgraded = True
            await self._start(replica)

    # -- the database ---------------------------------------------------------------------------------

    async def _fast(self, fault: Fault) -> None:
        await self._restart(fault, signal.SIGINT)

    async def _immediate(self, fault: Fault) -> None:
        await self._restart(fault, signal.SIGQUIT)

    async def _restart(self, fault: Fault, how: signal.Signals) -> None:
        await self._house.database.end(how)
        await asyncio.sleep(fault.seconds)
        await self._house.database.start()

    async def _exhausted(self, fault: Fault) -> None:
        """Nobody else gets a connection; those there are stay."""
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                try:
                    connection = await psycopg.AsyncConnection.connect(self._house.database.url)
                except psycopg.OperationalError:
                    break
                stack.push_async_callback(connection.close)
            await asyncio.sleep(fault.seconds)

    async def _terminated(self, fault: Fault) -> None:
        deadline = asyncio.get_running_loop().time() + fault.seconds
        async with await psycopg.AsyncConnection.connect(
            self._house.database.ours, autocommit=True
        ) as connection:
            while asyncio.get_running_loop().time() < deadline:
                await connection.execute(_EVERY_GATEWAY)
                await asyncio.sleep(0.4)

    async def _locked(self, fault: Fault) -> None:
        """Somebody has begun a transaction at a prompt, and gone for a coffee."""
        async with await psycopg.AsyncConnection.connect(self._house.database.ours) as connection:
            await connection.execute(_SEVERAL_JOBS)
            await asyncio.sleep(fault.seconds)
            await connection.rollback()

    async def _reader(self, fault: Fault) -> None:
        async with await psycopg.AsyncConnection.connect(self._house.database.ours) as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await connection.execute(_LONG, (fault.seconds,))
            await connection.rollback()

    async def _pinned(self, fault: Fault) -> None:
        """An open transaction with a number of its own: what is dead since can't be vacuumed."""
        async with await psycopg.AsyncConnection.connect(self._house.database.ours) as connection:
            await connection.execute("SELECT pg_current_xact_id()")
            await asyncio.sleep(fault.seconds)
            await connection.rollback()

    async def _stalled(self, fault: Fault) -> None:
        """The network to it swallows all."""
        line = self._house.lines["database"]
        await line.disturb("hung", fault.number)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await line.heal()

    # -- the disk -------------------------------------------------------------------------------------

    async def _fill(self, fault: Fault) -> None:
        leave = 0 if fault.what == "full" else LEAST_FREE // 2
        await asyncio.to_thread(self._house.fill_disk, leave)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._house.empty_disk()
