"""A line between the gateway and a peer, which can be disturbed; it keeps a journal of what went over it.

It speaks no protocol: an exchange is what one side says until the other has answered and the first speaks
again. That is true of HTTP, of DIMSE and of MLLP.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from tests.peers.ports import free_port
from tests.soak.patients import ROOT

Speech = Literal["http", "dicom", "mllp"]

_PIECE = 2**16
_TAIL = 128
_MENTIONED = re.compile(re.escape(ROOT).encode() + rb"[0-9.]*[0-9]")
_CARRIED = re.compile(
    rb"\x08\x00\x18\x00(?:UI..|..\x00\x00)(" + re.escape(ROOT).encode() + rb"[0-9.]*[0-9])", re.DOTALL
)
_ACCEPTED = b"\x02"  # the first byte of an A-ASSOCIATE-AC, which isn't the answer that gets lost
_REFUSALS = {
    "401": b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n",
    "429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\n",
}
_PAGE = b"<html><body>It works! \xff\xfe</body></html>"


@dataclass(slots=True)
class Exchange:
    line: str
    at: float
    head: str = ""
    mentions: set[str] = field(default_factory=set)  # UIDs of ours, wherever they stood
    carries: set[str] = field(default_factory=set)  # of instances that were in it
    sent: int = 0
    answered: float | None = None  # when the first of the answer went back
    lost: bool = False  # the peer did its work, and its answer didn't come whole
    ended: float | None = None


class Line:
    def __init__(self, name: str, targets: Sequence[int], speech: Speech, *, noted: bool = True) -> None:
        self.name = name
        self.port = free_port()
        self.journal: list[Exchange] = []
        self.trouble = ""
        self._number = 0
        self.targets = list(targets)
        self._speech = speech
        self.noted = noted
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._talks: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_uploading(self) -> bool:
        """Instances are on their way, and aren't there yet."""
        return any(
            each.carries and each.answered is None and each.ended is None for each in self.journal[-20:]
        )

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=_PIECE, reuse_address=True
        )

    async def close(self) -> None:
        await self._shut()
        self._hang_up()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def disturb(self, trouble: str, number: int) -> None:
        self.trouble, self._number = trouble, number
        if trouble == "down":
            await self._shut()
            self._hang_up()

    async def heal(self) -> None:
        was, self.trouble = self.trouble, ""
        self._changed.set()
        self._changed = asyncio.Event()
        if was in ("hung", "slow"):
            self._hang_up()
        if was == "down":
            await self.open()

    def _hang_up(self) -> None:
        for writers in list(self._talks.values()):
            for writer in writers:
                writer.transport.abort()

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    # -- one connection -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks[task] = [writer]
        try:
            await self._talk(reader, writer, self._talks[task])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in self._talks.pop(task):
                each.transport.abort()

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        if self.trouble == "hung":
            await self._say_nothing(reader)
        elif self.trouble in _REFUSALS or self.trouble == "garbage":
            await self._talk_nonsense(reader, writer)
        else:
            far_reader, far_writer = await self._reach()
            writers.append(far_writer)
            talk = _Talk(self)
            ways = [
                asyncio.create_task(self._carry(talk, reader, far_writer)),
                asyncio.create_task(self._carry_back(talk, far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if not ways[1].done():  # who called has said all: the answer is still to come
                    await asyncio.wait(ways, timeout=0.5)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                talk.end()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in self.targets:
            self._turn += 1
            with suppress(OSError):
                target = self.targets[self._turn % len(self.targets)]
                return await asyncio.open_connection("127.0.0.1", target, limit=_PIECE)
        raise ConnectionRefusedError

    async def _say_nothing(self, reader: asyncio.StreamReader) -> None:
        reading = asyncio.create_task(_read_all(reader))
        healed = asyncio.create_task(self._changed.wait())
        await asyncio.wait((reading, healed), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, healed):
            task.cancel()
        await asyncio.gather(reading, healed, return_exceptions=True)

    async def _talk_nonsense(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError):
            while True:  # all that is asked, as far as it comes at once
                async with asyncio.timeout(0.3):
                    if not await reader.read(_PIECE):
                        break
        if self._speech != "http":
            answer = b"\x0b\x00garbage\xff\x1c\r" * 3
        elif self.trouble == "garbage" and self._number % 2:
            answer = b"\x16\x03\x01\x00garbage" * 20
        else:
            head = _REFUSALS.get(self.trouble, b"HTTP/1.1 200 OK\r\n")
            length = f"Content-Length: {len(_PAGE)}\r\n".encode()
            answer = head + b"Content-Type: text/html\r\nConnection: close\r\n" + length + b"\r\n" + _PAGE
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        with suppress(TimeoutError):
            await asyncio.wait_for(_read_all(reader), 1)

    async def _carry(self, talk: _Talk, near: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await near.read(_PIECE):
            if talk.is_new and (self.trouble in _REFUSALS or self.trouble in ("garbage", "hung")):
                if self.trouble == "hung":
                    await self._changed.wait()
                return  # whoever asks again meets the trouble itself
            talk.ask(data)
            if self.trouble == "cut" and self._number % 2:
                carried += len(data)
                if carried > self._number:
                    far.write(data[: max(1, self._number - carried + len(data))])
                    return
            await self._pass(data, far)
        with suppress(OSError, RuntimeError):
            far.write_eof()

    async def _carry_back(self, talk: _Talk, far: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await far.read(_PIECE):
            if self.trouble == "hung":
                talk.lose()
                await self._changed.wait()
                return
            if self.trouble == "lost" and not (self._speech == "dicom" and data[:1] == _ACCEPTED):
                talk.lose()
                return
            if self.trouble == "cut" and not self._number % 2:
                carried += len(data)
                if carried > self._number % 500:
                    near.write(data[: len(data) // 2])
                    await near.drain()
                    talk.lose()
                    return
            await self._pass(data, near)
            talk.answer()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        step = 2048 if self.trouble == "slow" else _PIECE
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            if self.trouble == "slow":
                await asyncio.sleep(0.1)


class _Talk:
    """What is noted of one connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._now: Exchange | None = None
        self._tail = b""

    @property
    def is_new(self) -> bool:
        return self._now is None or self._now.answered is not None

    def ask(self, data: bytes) -> None:
        if not self._line.noted:
            return
        if self._now is None or self.is_new:
            self.end()
            head = data[:400].split(b"\r\n")[0].decode("ascii", "replace")
            self._now, self._tail = Exchange(self._line.name, time.time(), head), b""
            self._line.journal.append(self._now)
        seen = self._tail + data
        self._now.sent += len(data)
        self._now.mentions |= {found.decode() for found in _MENTIONED.findall(seen)}
        self._now.carries |= {found.decode() for found in _CARRIED.findall(seen)}
        self._tail = seen[-_TAIL:]

    def answer(self) -> None:
        if self._now is not None and self._now.answered is None:
            self._now.answered = time.time()

    def lose(self) -> None:
        if self._now is not None:
            self._now.lost = True

    def end(self) -> None:
        if self._now is not None:
            self._now.ended = time.time()
            self._now.lost |= self._now.answered is None


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(_PIECE):
        pass


@asynccontextmanager
async def opened(lines: Sequence[Line]) -> AsyncIterator[None]:
    try:
        for line in lines:
            await line.open()
        yield
    finally:
        for line in lines:
            await line.close()
