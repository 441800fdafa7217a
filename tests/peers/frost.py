"""A line to PostgreSQL on which nothing comes any more from some word on, as from one that is frozen: who
comes later is let in by the machine, and hears nothing either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit


class Frost:
    def __init__(self, to: str, word: bytes | None) -> None:
        """`word`: of the first question that isn't passed on; None: nothing ever is."""
        parts = urlsplit(to)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._name = parts.path
        self._word = word
        self.frozen = word is None
        self.port = 0

    @property
    def url(self) -> str:
        return f"postgresql://gateway@127.0.0.1:{self.port}{self._name}?sslmode=disable"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            if self.frozen:
                await reader.read(-1)
                return
            there, back = await asyncio.open_unix_connection(self._socket)
            await asyncio.gather(self._ask(reader, back), self._answer(there, writer))
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            self.frozen = self.frozen or (self._word is not None and self._word in data)
            if not self.frozen:
                writer.write(data)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if not self.frozen:
                writer.write(data)
        if not self.frozen:
            writer.close()


@asynccontextmanager
async def frost(to: str, word: bytes | None) -> AsyncIterator[Frost]:
    made = Frost(to, word)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
