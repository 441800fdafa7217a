"""Who gives way to whom at the doors."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest

from gateway.intake.places import Guest, Places, Stage, household
from gateway.intake.porch import Porch
from gateway.loops import beside


def guest(
    address: str, now: float = 0.0, stage: Stage = Stage.ASKING, received: int = 0
) -> tuple[Guest, list[str]]:
    left: list[str] = []
    made = Guest(address, now)
    made.enter(stage, now)
    made.received = received
    made.leave = lambda: left.append(address)
    return made, left


def test_the_silent_give_way_first_and_the_served_never() -> None:
    places = Places(5, 5)
    silent, silent_left = guest("10.0.0.1", 10)
    idle, idle_left = guest("10.0.0.2", 0, Stage.IDLE)
    dribbling, dribbling_left = guest("10.0.0.3", 10, Stage.SENDING, received=5000)
    flowing, flowing_left = guest("10.0.0.4", 10, Stage.SENDING, received=10**9)
    served, served_left = guest("10.0.0.5", 0, Stage.SERVED)
    for each in (silent, idle, dribbling, flowing, served):
        assert places.take(each)
    for gave_way in (silent_left, dribbling_left, idle_left):
        newcomer, newcomer_left = guest("10.0.0.9", 20)
        assert places.take(newcomer) and gave_way and not newcomer_left
        newcomer.enter(Stage.SERVED, 20)
    newcomer, newcomer_left = guest("10.0.0.9", 20)
    assert places.take(newcomer) and flowing_left and not newcomer_left
    assert places.take(guest("10.0.0.8", 20.5)[0]) and newcomer_left, "one newcomer instead of another"
    assert not served_left


def test_where_all_are_served_a_newcomer_is_turned_away() -> None:
    places = Places(3, 3)
    for number in range(3):
        assert places.take(guest(f"10.0.0.{number}", 0, Stage.SERVED)[0])
    assert not places.take(guest("10.0.0.9", 5)[0])


def test_an_address_that_fills_its_places_takes_nobody_elses() -> None:
    places = Places(100, 10)
    other, other_left = guest("10.0.0.2", 0, Stage.IDLE)
    assert places.take(other)
    taken = [places.take(guest("10.0.0.1", 1 + number / 1000)[0]) for number in range(500)]
    assert taken.count(True) < 100, "a storm is worth only so much work"
    assert not other_left
    assert places.take(guest("10.0.0.1", 3)[0]), "a second later it may again"


def test_a_trusted_proxy_may_hold_all_places() -> None:
    places = Places(20, 2, [ip_network("10.0.0.0/24")])
    assert all(places.take(guest("10.0.0.1", 0, Stage.SERVED)[0]) for _ in range(20))
    assert not places.take(guest("10.0.0.1", 0)[0])


def test_in_a_crowd_whoever_stands_alone_is_let_in() -> None:
    places = Places(50, 40)
    for number in range(200):
        places.take(guest(f"10.0.0.{1 + number % 2}", number / 1000)[0])
    alone, left = guest("10.0.9.9", 0.3)
    assert places.take(alone)
    for number in range(200):
        places.take(guest(f"10.0.0.{1 + number % 2}", 0.4 + number / 1000)[0])
    assert not left


async def test_on_the_porch_a_crowd_takes_no_strangers_room_and_who_asked_last_is_let_in_first() -> None:
    let_in: list[str] = []

    def let(_: socket.socket, address: str) -> bool:
        let_in.append(address)
        return True

    porch = Porch(10, let)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(beside(porch.run()))

        def come(address: str, words: bytes = b"") -> socket.socket:
            outside, inside = socket.socketpair()
            opened.enter_context(outside), opened.enter_context(inside)
            outside.sendall(words)
            porch.wait(inside, address)
            return outside

        alone = come("10.0.0.2")
        for _ in range(40):
            come("10.0.0.1", b"GET / HTTP/1.1\r\n")
        came = [come("10.0.0.1", b"GET / HTTP/1.1\r\n\r\n") for _ in range(9)]
        alone.sendall(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(20):
            while let_in.count("10.0.0.1") < len(came) or "10.0.0.2" not in let_in:
                await asyncio.sleep(0.01)
        assert len(let_in) == 10 and "10.0.0.2" in let_in[:5], "each address has its share of every look"
        late = come("10.0.0.1")
        assert await asyncio.get_running_loop().run_in_executor(None, late.recv, 1) == b"", "seen off"
        porch.close()


async def test_on_the_porch_they_are_looked_after_even_once_one_could_not_be_let_in() -> None:
    tries: list[str] = []

    def let(_: socket.socket, address: str) -> bool:
        tries.append(address)
        if len(tries) == 1:
            raise RuntimeError
        return True

    porch = Porch(10, let)
    outside, inside = socket.socketpair()
    with outside, inside:
        async with beside(porch.run()):
            outside.sendall(b"GET / HTTP/1.1\r\n\r\n")
            porch.wait(inside, "10.0.0.1")
            async with asyncio.timeout(60):
                while len(tries) < 2:
                    await asyncio.sleep(0.01)
        porch.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (household(one) == household(other)) is same
