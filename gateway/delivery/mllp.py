"""HL7 messages over MLLP: one connection a message, closed when its acknowledgement was read."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from gateway import spans, traffic
from gateway.contract import Failure, Health, NeedsHuman, NotLetIn, Retryable, Unreachable, Untrusted
from gateway.delivery.hl7 import Message, check_acknowledgement
from gateway.http import distrust

_BEGIN, _END = b"\x0b", b"\x1c\r"
_LARGEST_ANSWER = 2**20
_NO_MESSAGE = b"OPTIONS * HTTP/1.0\r\n\r\n"  # bytes outside of a frame are nothing to an HL7 listener
_OTHERS = {b"HTTP/": "HTTP", b"SSH-": "SSH", b"220": "SMTP or FTP"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `answer`: from the last byte of the message to the end of its acknowledgement."""

    connect: float = 10
    answer: float = 60
    total: float = 300
    probe: float = 2


@dataclass(frozen=True, slots=True)
class Listener:
    """The RIS as the configuration names it: `name` is "destination ris"."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    limits: Limits = Limits()
    send_again: tuple[str, ...] = ()  # the codes of refusals that pass


async def send(listener: Listener, message: Message) -> None:
    """Returns once the other side has accepted the message."""
    with spans.call("MLLP", traffic.key_of(listener.name)):
        await _send(listener, message)


async def _send(listener: Listener, message: Message) -> None:
    async with _connected(listener) as (reader, writer):
        try:
            async with asyncio.timeout(listener.limits.total):
                framed = _BEGIN + message.encode() + _END
                writer.write(framed)
                await writer.drain()
                traffic.count(traffic.sent, traffic.key_of(listener.name), len(framed))
                async with asyncio.timeout(listener.limits.answer):
                    answer = await reader.readuntil(_END[:1])
                traffic.count(traffic.received, traffic.key_of(listener.name), len(answer))
        except TimeoutError as error:
            raise Retryable(
                f"the {listener.name} took the message and did not acknowledge it in time",
                "The same message is sent again; look into its log if this goes on.",
                uncertain=True,
            ) from error
        except asyncio.LimitOverrunError as error:
            raise Retryable(
                f"the {listener.name} answered more than any acknowledgement needs",
                "Check that an HL7 listener is behind this host and port.",
                uncertain=True,
            ) from error
        except ssl.SSLError as error:
            why, advice = distrust(error)
            raise NotLetIn(f"the {listener.name} can't be reached: {why}", advice) from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Retryable(
                f"the {listener.name} broke the connection before it acknowledged the message",
                "The same message is sent again; look into its log if this goes on.",
                uncertain=True,
            ) from error
    check_acknowledgement(answer[:-1].rpartition(_BEGIN)[2], message, listener.name, listener.send_again)


async def check(listener: Listener) -> Health:
    """Whether somebody listens there for HL7. No message is sent: what is, only web servers answer."""
    answer = b""
    try:
        async with _connected(listener) as (reader, writer):
            writer.write(_NO_MESSAGE)
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(listener.limits.probe):
                    answer = await reader.read(16)
    except Failure as failure:
        return Health.ill(failure)
    for beginning, spoken in _OTHERS.items():
        if answer.startswith(beginning):
            another = NeedsHuman(
                f"the {listener.name} speaks {spoken}, not HL7", "Correct its host and port."
            )
            another.manner = f"speaks {spoken}, not HL7"
            return Health(False, f"{another.message}. {another.advice}", failure=another)
    return Health(True, f"the {listener.name} takes connections")


@asynccontextmanager
async def _connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(listener.limits.connect):
            reader, writer = await asyncio.open_connection(
                listener.host, listener.port, ssl=listener.tls, limit=_LARGEST_ANSWER
            )
    except ssl.SSLError as error:
        why, advice = distrust(error)
        raise Untrusted(
            f"the {listener.name} can't be trusted: {why}", advice or "Name the authority as its tls.ca."
        ) from error
    except OSError as error:  # a time-out is one as well
        raise Unreachable(
            f"the {listener.name} can't be reached",
            "Check that it listens, and the name, port and firewall between it and this machine.",
        ) from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()
        writer.transport.abort()
