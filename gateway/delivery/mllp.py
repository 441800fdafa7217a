"""HL7 messages over MLLP: one connection a message, closed when its acknowledgement was read."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.contract import Failure, Health, NeedsHuman, Retryable
from gateway.delivery.hl7 import Message, check_acknowledgement

_BEGIN, _END = b"\x0b", b"\x1c\r"
_LARGEST_ANSWER = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `answer`: from the last byte of the message to the end of its acknowledgement."""

    connect: float = 10
    answer: float = 60
    total: float = 300


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
    async with _connected(listener) as (reader, writer):
        try:
            async with asyncio.timeout(listener.limits.total):
                writer.write(_BEGIN + message.encode() + _END)
                await writer.drain()
                async with asyncio.timeout(listener.limits.answer):
                    answer = await reader.readuntil(_END[:1])
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
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Retryable(
                f"the {listener.name} broke the connection before it acknowledged the message",
                "The same message is sent again; look into its log if this goes on.",
                uncertain=True,
            ) from error
    check_acknowledgement(answer[:-1].rpartition(_BEGIN)[2], message, listener.name, listener.send_again)


async def check(listener: Listener) -> Health:
    """Whether somebody listens there; no message is sent."""
    try:
        async with _connected(listener):
            return Health(True, f"the {listener.name} takes connections")
    except Failure as failure:
        return Health(False, failure.sentences)


@asynccontextmanager
async def _connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(listener.limits.connect):
            reader, writer = await asyncio.open_connection(
                listener.host, listener.port, ssl=listener.tls, limit=_LARGEST_ANSWER
            )
    except ssl.SSLError as error:
        raise NeedsHuman(
            f"the {listener.name} can't be trusted: the TLS handshake failed",
            "Check its certificate, the ca configured for it, and whether it speaks TLS at all.",
        ) from error
    except OSError as error:  # a time-out is one as well
        raise Retryable(
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
