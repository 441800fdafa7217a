"""The line to a peer, which a test cuts, mutes and mends, and listens to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.peers.ports import free_port

_AT_ONCE = 1 << 16


class Line:
    def __init__(self, to: str) -> None:
        """`to`: the url of the peer; `url` is where it is reached by this line."""
        parts = urlsplit(to)
        self._peer = parts.hostname or "", parts.port or 80
        self._port = free_port()
        self.url = f"{parts.scheme}://127.0.0.1:{self._port}{parts.path}"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.mute = False
        self.calls = 0
        self.said: bytearray | None = None  # all that the peer was told, once somebody listens

    async def connect(self, *, mute: bool = False) -> None:
        """`mute`: connections come about, and nothing is ever said."""
        await self.cut()
        self.mute = mute
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Connections are refused, and those that there are end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self.mute:
                await asyncio.Event().wait()
            there, back = await asyncio.open_connection(*self._peer)
            with suppress(OSError):
                await asyncio.gather(_carry(reader, back, self.said), _carry(there, writer))
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._open.discard(task)


async def _carry(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, heard: bytearray | None = None
) -> None:
    try:
        while data := await source.read(_AT_ONCE):
            if heard is not None:
                heard += data
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    line = Line(url)
    await line.connect()
    try:
        yield line
    finally:
        await line.cut()
