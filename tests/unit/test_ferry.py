"""Who comes while others are being committed is committed with all who came meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from gateway.jobs.store.ferry import Ferry


class Bank:
    """The other side; it may be held up, and takes no negative number aboard."""

    def __init__(self):
        self.crossings: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.gone = False

    async def land(self, numbers):
        self.crossings.append(list(numbers))
        await self.open.wait()
        if self.gone:
            raise ConnectionError
        if min(numbers) < 0:
            raise ValueError
        return [number * 10 for number in numbers]


def ferry_to(bank):
    return Ferry(bank.land, lambda trouble: isinstance(trouble, ConnectionError))


async def test_who_comes_alone_goes_alone_and_all_who_come_meanwhile_together():
    bank = Bank()
    bank.open.clear()
    ferry = ferry_to(bank)
    early = []
    for number in (1, 2):
        early.append(asyncio.create_task(ferry.take(number)))
        while len(bank.crossings) < number:
            await asyncio.sleep(0)
    later = [asyncio.create_task(ferry.take(number)) for number in range(3, 30)]
    await asyncio.sleep(0)
    bank.open.set()
    assert await asyncio.gather(*early, *later) == [number * 10 for number in range(1, 30)]
    assert bank.crossings == [[1], [2], list(range(3, 30))]


async def test_one_that_cant_go_keeps_none_of_the_others_back():
    bank = Bank()
    ferry = ferry_to(bank)
    said = await asyncio.gather(*(ferry.take(number) for number in (1, -2, 3)), return_exceptions=True)
    assert [said[0], said[2]] == [10, 30]
    assert isinstance(said[1], ValueError)
    assert bank.crossings == [[1, -2, 3], [1], [-2], [3]]


async def test_where_nobody_knows_how_far_it_got_none_is_taken_twice():
    bank = Bank()
    bank.gone = True
    ferry = ferry_to(bank)
    said = await asyncio.gather(*(ferry.take(number) for number in (1, 2)), return_exceptions=True)
    assert [type(each) for each in said] == [ConnectionError, ConnectionError]
    assert bank.crossings == [[1, 2]]
    bank.gone = False
    assert await ferry.take(3) == 30


async def test_who_has_gone_away_meanwhile_keeps_nobody_from_his_answer():
    bank = Bank()
    bank.open.clear()
    ferry = ferry_to(bank)
    gone, stays = (asyncio.create_task(ferry.take(number)) for number in (1, 2))
    while not bank.crossings:
        await asyncio.sleep(0)
    gone.cancel()
    bank.open.set()
    assert await stays == 20
    with pytest.raises(asyncio.CancelledError):
        await gone
    await ferry.close()


async def test_who_has_gone_before_there_was_room_is_left_behind():
    bank = Bank()
    bank.open.clear()
    ferry = ferry_to(bank)
    early = []
    for number in (1, 2):
        early.append(asyncio.create_task(ferry.take(number)))
        while len(bank.crossings) < number:
            await asyncio.sleep(0)
    impatient, patient = (asyncio.create_task(ferry.take(number)) for number in (3, 4))
    await asyncio.sleep(0)
    impatient.cancel()
    bank.open.set()
    assert await patient == 40
    assert bank.crossings == [[1], [2], [4]]
    await asyncio.gather(*early)
