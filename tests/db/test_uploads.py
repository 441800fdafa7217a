"""What a vendor's uploads may take of the line holds for all processes together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from gateway.jobs.store import Store, uploads
from gateway.kit.brake import Brake, Share

MOST = 900.0


async def test_all_shares_together_are_never_more_than_may_be_sent(
    database_url: str, open_store: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes waits until the others know; whoever goes leaves his share to those who stay."""
    monkeypatch.setattr(uploads, "_LEASE", 3600.0)
    stores = [open_store(database_url) for _ in range(3)]
    senders = [uuid4() for _ in stores]

    async def ask(which: int, most: float = MOST, peer: str = "adapters.a") -> float:
        return (await stores[which].lease_upload(peer, senders[which], most))[0]

    assert await ask(0) == 900
    assert await ask(1) == 0, "all is another's, for a while"
    assert await ask(0) == 450
    assert await ask(1) == 450
    assert await ask(2) == 0
    assert [await ask(which) for which in (0, 1, 2, 0)] == [300, 300, 300, 300]
    assert await ask(2, peer="adapters.b") == 900, "another vendor's line"
    assert await ask(0, most=90) == 0, "less may be sent from now on: it waits for the others to know"
    monkeypatch.setattr(uploads, "_LEASE", -1.0)
    assert [await ask(which) for which in (1, 2)] == [300, 450], "whose lease has ended is gone"
    assert await ask(0) == 900


async def test_two_processes_at_once_have_a_half_each(
    database_url: str, open_store: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_LEASE", 0.2)
    monkeypatch.setattr(uploads, "_ASKED_AGAIN", 0.02)
    held: dict[int, list[float]] = {0: [], 1: []}

    def sending(which: int) -> Brake:
        brake, store, sender = Brake(), open_store(database_url), uuid4()

        async def lease(most: float) -> Share:
            share = Share(*await store.lease_upload("adapters.a", sender, most))
            held[which].append(share.bytes_a_second)
            return share

        brake.lease = lease
        return brake

    async def endless() -> AsyncGenerator[bytes | memoryview, None]:
        while True:
            yield bytes(1000)

    async def send(which: int) -> None:
        async for _ in sending(which).slow(endless(), 100_000):
            if all(50_000 in shares for shares in held.values()):
                return

    async with asyncio.timeout(60):
        await asyncio.gather(send(0), send(1))
    assert {*held[0], *held[1]} <= {0, 50_000, 100_000}


async def test_who_had_to_wait_for_his_share_has_it_for_as_long_as_he_is_told(
    database_url: str, open_store: Callable[[str], Store]
) -> None:
    """Else another would have it too, before he stops."""
    store, sender = open_store(database_url), uuid4()
    async with await psycopg.AsyncConnection.connect(database_url) as before, before.cursor() as another:
        await another.execute("SELECT pg_advisory_xact_lock(hashtextextended('adapters.a', 2))")
        asking = asyncio.create_task(store.lease_upload("adapters.a", sender, MOST))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while (await (await another.execute(waiting)).fetchone()) == (0,):
            await asyncio.sleep(0.05)
        freed = await (await another.execute("SELECT clock_timestamp()")).fetchone()
        await before.commit()
        _, seconds = await asking
        until = await (await another.execute("SELECT until FROM uploads")).fetchone()
    assert freed is not None and until is not None
    assert until[0] >= freed[0] + timedelta(seconds=seconds)
