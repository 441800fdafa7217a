"""A forward proxy on loopback: passes connections on (CONNECT) and plain requests, for whoever may."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """`passed`: what was asked of it and let through, as `CONNECT host:port` or `GET http://…`."""

    credentials: str | None = None
    url: str = ""
    passed: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
            method, target, _ = first.split(" ")
            if not self._knows(headers):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return await _end(writer)
            there = urlsplit(target if "://" in target else f"//{target}")
            try:
                upstream = await asyncio.open_connection(there.hostname, there.port)
            except OSError:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return await _end(writer)
            self.passed.append(f"{method} {target}")
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [line for line in headers if not line.lower().startswith(("proxy-", "connection:"))]
                path = target.partition(there.netloc)[2] or "/"
                lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                upstream[1].write("\r\n".join(lines).encode())
            await asyncio.gather(_pour(reader, upstream[1]), _pour(upstream[0], writer))
        return await _end(writer)

    def _knows(self, headers: list[str]) -> bool:
        if self.credentials is None:
            return True
        wanted = f"Basic {base64.b64encode(self.credentials.encode()).decode()}"
        return f"Proxy-Authorization: {wanted}" in headers


@asynccontextmanager
async def proxy(credentials: str | None = None) -> AsyncIterator[Proxy]:
    made = Proxy(credentials)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await writer.drain()
        writer.close()
