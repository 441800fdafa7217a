"""Messages to a syslog collector over TLS (RFC 5424 in the frames of RFC 5425), one connection a batch.

No collector acknowledges a message. That it has read them all shows when we say that no more comes and it
then closes its side as well: had it gone before, or left anything unread, the connection would break instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from gateway import traffic
from gateway.contract import Failure, Health, Retryable, Unreachable, Untrusted, blaming
from gateway.http import distrust
from gateway.sessions import expiry_in

PEER = "audit_log.syslog"
_MSGID = "DICOM+RFC3881"
_NOTICE, _WARNING = 85, 84  # of security, as DICOM wants it
_AT_ONCE = 1 << 16
_LOOKS_AGAIN = 0.01
_KEPT = "What it is to hear is kept and sent when it is back."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `silence`: in which it takes nothing and says nothing."""

    connect: float = 10
    silence: float = 20
    total: float = 120


@dataclass(frozen=True, slots=True)
class Entry:
    at: datetime
    text: bytes
    failed: bool = False


class Collector:
    def __init__(self, host: str, port: int, tls: ssl.SSLContext, limits: Limits | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._limits = limits or Limits()
        self._us = socket.gethostname()

    async def send(self, entries: Iterable[Entry]) -> None:
        """Returns once the collector has read all of them."""
        framed = b"".join(self._frame(entry) for entry in entries)
        with blaming(PEER):
            async with self._connected() as line:
                await line.send(framed)
                await line.close()
        traffic.count(traffic.sent, PEER, len(framed))

    async def check(self) -> Health:
        try:
            async with self._connected() as line:
                expires = expiry_in(line.certificate())
                await line.close()
        except Failure as failure:
            return Health(False, failure.sentences)
        return Health(True, "the audit collector takes connections, and its certificate is good", expires)

    def _frame(self, entry: Entry) -> bytes:
        moment = entry.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        priority = _WARNING if entry.failed else _NOTICE
        head = f"<{priority}>1 {moment} {self._us} gateway - {_MSGID} - \ufeff"
        message = head.encode() + entry.text
        return b"%d %b" % (len(message), message)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Line]:
        try:
            async with asyncio.timeout(self._limits.connect):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:  # a time-out is one as well
            raise Unreachable(
                "the audit collector can't be reached",
                "Check audit_log.syslog, that the collector runs, and the firewall between it and this"
                f" machine. {_KEPT}",
            ) from None
        line = Line(reader, writer, self._tls, self._host, self._limits.silence)
        try:
            async with asyncio.timeout(self._limits.total):
                await line.shake_hands()
                yield line
        except ssl.SSLError as error:
            why, advice = distrust(error)
            advice = advice or "Name the authority of its certificate as audit_log.ca."
            raise Untrusted(f"the audit collector can't be trusted: {why}", f"{advice} {_KEPT}") from None
        except TimeoutError:
            raise Retryable(
                "the audit collector takes nothing any more", f"Its own log says why. {_KEPT}", uncertain=True
            ) from None
        except (OSError, EOFError):
            raise Retryable(
                "the audit collector left before it had read all",
                f"Its own log says why; what it may not have is sent again. {_KEPT}",
                uncertain=True,
            ) from None
        finally:
            writer.transport.abort()


class Line:
    """TLS over a connection whose end we see as it is: closed after all was read, or broken."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tls: ssl.SSLContext,
        host: str,
        silence: float,
    ) -> None:
        self._reader, self._writer, self._silence = reader, writer, silence
        self._come, self._gone = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._come, self._gone, server_hostname=host)

    async def shake_hands(self) -> None:
        await self._do(self._tls.do_handshake)

    def certificate(self) -> object:
        return self._tls.getpeercert()

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), _AT_ONCE):
            await self._do(partial(self._tls.write, data[start : start + _AT_ONCE]))
            if self._reader.at_eof():
                raise EOFError

    async def close(self) -> None:
        """Say that no more comes, and see the other side close too with all of it read. Some say so in TLS,
        others only close the connection: then each of our bytes must have been taken."""
        try:
            await self._do(self._tls.unwrap)
        except (EOFError, ssl.SSLEOFError):
            await self._see_all_taken()

    async def _see_all_taken(self) -> None:
        async with asyncio.timeout(self._silence):
            while True:
                untaken = self._untaken()
                if untaken < 0:
                    raise EOFError
                if untaken == 0:
                    return
                await asyncio.sleep(_LOOKS_AGAIN)

    def _untaken(self) -> int:
        """Bytes that the other machine hasn't acknowledged; below zero if it has torn the connection."""
        raw = self._writer.get_extra_info("socket")
        if self._writer.transport.is_closing() or raw is None or raw.fileno() < 0:
            return -1
        (left,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0" * 4))
        torn = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # last: it may just have been
        return -1 if torn else int(left)

    async def _do(self, what: Callable[[], T]) -> T:
        while True:
            try:
                done = what()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._read()
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if self._gone.pending:
            self._writer.write(self._gone.read())
        async with asyncio.timeout(self._silence):
            await self._writer.drain()

    async def _read(self) -> None:
        async with asyncio.timeout(self._silence):
            came = await self._reader.read(_AT_ONCE)
        if came:
            self._come.write(came)
        else:
            self._come.write_eof()
