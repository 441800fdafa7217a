"""Whoever asks a peer how it is hears how it is then."""

from __future__ import annotations

import asyncio

from gateway.checkups import Checkups
from gateway.contract import Health

PEER = "archives.vna"


class Peer:
    def __init__(self) -> None:
        self.ok = False
        self.asked = 0
        self.answers = asyncio.Event()

    async def check(self) -> Health:
        self.asked += 1
        health = Health(self.ok, "")
        await self.answers.wait()
        return health


async def test_what_was_found_when_nobody_waited_for_it_any_more_is_told_to_nobody_later() -> None:
    """A job that is cancelled while it asks leaves a question behind."""
    peer = Peer()
    checkups = Checkups(lambda _: peer.check, 60)
    asking = asyncio.create_task(checkups.ask(PEER))
    while not peer.asked:
        await asyncio.sleep(0)
    asking.cancel()
    [left] = list(checkups.under_way)
    peer.answers.set()
    await asyncio.wait({asking, left})
    assert not list(checkups.under_way)
    peer.ok = True
    assert (await checkups.ask(PEER)).ok
    assert peer.asked == 2


async def test_those_who_ask_together_ask_once_and_who_comes_later_hears_no_earlier_good_news() -> None:
    peer = Peer()
    checkups = Checkups(lambda _: peer.check, 60)
    peer.answers.set()
    both = await asyncio.gather(checkups.ask(PEER), checkups.ask(PEER))
    assert [each.ok for each in both] == [False, False] and peer.asked == 1
    peer.ok, peer.answers = True, asyncio.Event()
    first = asyncio.create_task(checkups.ask(PEER))
    while peer.asked < 2:
        await asyncio.sleep(0)
    peer.ok = False
    second = asyncio.create_task(checkups.ask(PEER))
    await asyncio.sleep(0)
    peer.answers.set()
    assert ((await first).ok, (await second).ok, peer.asked) == (True, False, 3)
