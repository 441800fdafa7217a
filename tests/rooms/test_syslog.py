"""Messages to an audit collector over TLS: taken whole, or known not to be."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import Failure, NotLetIn, Retryable, Unreachable
from gateway.settings.audit_log import AuditLog
from gateway.settings.certificates import calling
from gateway.watch.atna import Event, Kind, Message, Participant
from gateway.watch.syslog import Collector, Entry, Limits
from tests.peers.certificates import Authority
from tests.peers.collector import rsyslog
from tests.peers.ports import free_port

Act = Callable[[ssl.SSLSocket], Awaitable[None]]
AT = datetime(2026, 11, 30, 9, 0, 0, 123000, tzinfo=UTC)


def entries(number: int, long: int = 0) -> list[Entry]:
    made = []
    for each in range(number):
        people = [Participant(f"user {each} Zoë{'x' * long}", asks=True)]
        text = Message(Event.AUTHENTICATION, "E", AT, people, kind=Kind.LOGIN).write("gateway.hospital")
        made.append(Entry(AT, text, failed=each % 2 == 1))
    return made


def to(address: str, limits: Limits | None = None, **trust: Any) -> Collector:
    settings = AuditLog.model_validate({"syslog": address, **trust})
    return Collector(settings.host, settings.port, calling("audit_log", settings), limits)


async def test_a_collector_takes_messages_whole_and_in_their_order(tmp_path: Path) -> None:
    async with rsyslog(tmp_path) as collector:
        sender = to(collector.url, ca=str(collector.authority.path))
        await sender.send(entries(3))
        await sender.send(entries(300, long=1000))
        heard = collector.heard()
        assert [each.users[0].split("x")[0] for each in heard] == [
            *(f"user {each} Zoë" for each in range(3)),
            *(f"user {each} Zoë" for each in range(300)),
        ], "all of them had been written down when the sender said that they were taken"
        assert [each.priority for each in heard[:3]] == [85, 84, 85]
        health = await sender.check()
        assert health.ok and health.certificate_expires is not None
        assert len(collector.heard()) == 303, "who only looks says nothing"


async def test_a_collector_that_wants_our_certificate_is_shown_it(tmp_path: Path) -> None:
    async with rsyslog(tmp_path, asks_for_certificates=True) as collector:
        without = to(collector.url, ca=str(collector.authority.path))
        with pytest.raises(Failure):
            await without.send(entries(1))
        ours = collector.authority.certify("gateway")
        sender = to(
            collector.url,
            ca=str(collector.authority.path),
            certificate=str(ours.certificate),
            key=str(ours.key),
        )
        await sender.send(entries(2))
        assert len(collector.heard()) == 2


async def test_a_collector_that_is_away_or_a_stranger_is_told_in_a_sentence(tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(Unreachable, match="can't be reached"):
        await to(f"tls://127.0.0.1:{free_port()}").send(entries(1))
    async with rsyslog(tmp_path / "collector") as collector:
        for sender in (to(collector.url), to(collector.url, ca=str(stranger.path))):
            with pytest.raises(NotLetIn, match=r"can't be trusted.*authority"):
                await sender.send(entries(1))
            health = await sender.check()
            assert not health.ok and "audit_log.ca" in health.sentence
        assert collector.lines() == []


async def test_what_a_collector_left_unread_is_known_not_to_be_taken(tmp_path: Path) -> None:
    """It may leave at any moment: stopped, killed, or having read only a part."""
    authority = Authority(tmp_path)
    certified = authority.certify("collector")

    async def never_reads(line: ssl.SSLSocket) -> None:
        await asyncio.sleep(0.2)

    async def reads_a_part(line: ssl.SSLSocket) -> None:
        await asyncio.to_thread(line.recv, 100)

    async def leaves_at_once(line: ssl.SSLSocket) -> None:
        return

    for acts in (never_reads, reads_a_part, leaves_at_once):
        async with listener(certified.server, acts) as port:
            sender = to(f"tls://127.0.0.1:{port}", Limits(5, 5, 20), ca=str(authority.path))
            with pytest.raises(Retryable, match="left before it had read all"):
                await sender.send(entries(200, long=1000))
    speaks_last = certified.server
    speaks_last.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(5):  # it may be gone before or after we say that no more comes
        async with listener(speaks_last, leaves_at_once) as port:
            health = await to(f"tls://127.0.0.1:{port}", ca=str(authority.path)).check()
            assert not health.ok


async def test_a_collector_that_takes_nothing_any_more_is_given_up(tmp_path: Path) -> None:
    async with rsyslog(tmp_path) as collector:
        sender = to(collector.url, Limits(5, 1, 20), ca=str(collector.authority.path))
        assert collector.process is not None
        collector.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Retryable, match="takes nothing any more"):
                await sender.send(entries(1))
        finally:
            collector.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def listener(
    context: ssl.SSLContext, acts: Callable[[ssl.SSLSocket], Awaitable[None]]
) -> AsyncIterator[int]:
    """TLS by a plain socket, which is closed as the operating system does when a process dies."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def take() -> None:
            raw, _ = await asyncio.to_thread(server.accept)
            line = await asyncio.to_thread(context.wrap_socket, raw, server_side=True)
            await acts(line)
            line.close()

        taking = asyncio.create_task(take())
        yield server.getsockname()[1]
        await taking
