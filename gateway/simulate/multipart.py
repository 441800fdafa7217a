"""Multipart/related as the simulated servers read and write it: strictly, part by part."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from email.message import Message

Part = tuple[dict[str, str], bytes]
MOST_HEADERS = 16_384


class Malformed(Exception):
    """What came isn't multipart, or is cut off."""


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    message = Message()
    message["Content-Type"] = value
    return message.get_content_type(), {key: str(text) for key, text in message.get_params(failobj=[])[1:]}


def make_boundary() -> str:
    return uuid.uuid4().hex


def open_part(boundary: str, content_type: str, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"--{boundary}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def close_parts(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def _parse_headers(block: bytes) -> dict[str, str]:
    headers = {}
    for line in block.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise Malformed("a part has a header line without a name")
        headers[name.lower()] = value.strip()
    return headers


class _Buffer:
    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.chunks = chunks
        self.data = bytearray()

    async def take_until(self, mark: bytes, limit: int | None = None) -> bytes:
        searched = 0
        while (at := self.data.find(mark, searched)) < 0:
            searched = max(0, len(self.data) - len(mark) + 1)
            if limit is not None and len(self.data) > limit:
                raise Malformed("the headers of a part don't end")
            await self.fill()
        taken = bytes(memoryview(self.data)[:at])
        del self.data[: at + len(mark)]
        return taken

    async def peek(self, count: int) -> bytes:
        while len(self.data) < count:
            await self.fill()
        return bytes(self.data[:count])

    async def fill(self) -> None:
        async for chunk in self.chunks:
            self.data += chunk
            return
        raise Malformed("the body ends before its closing boundary")


async def read_parts(chunks: AsyncIterator[bytes], boundary: str) -> AsyncIterator[Part]:
    """Raises `Malformed` unless the closing boundary comes; whatever was given before then is void."""
    if not boundary:
        raise Malformed("the Content-Type has no boundary")
    buffer = _Buffer(chunks)
    mark = b"--" + boundary.encode()
    if await buffer.peek(2) == b"\r\n":  # an empty preamble, as a common client sends it
        del buffer.data[:2]
    if await buffer.peek(len(mark)) != mark:
        raise Malformed("the body doesn't begin with its boundary")
    del buffer.data[: len(mark)]
    mark = b"\r\n" + mark
    while (ending := await buffer.peek(2)) == b"\r\n":
        if await buffer.peek(4) == b"\r\n\r\n":
            raise Malformed("a part has no Content-Type")
        del buffer.data[:2]
        headers = _parse_headers(await buffer.take_until(b"\r\n\r\n", MOST_HEADERS))
        yield headers, await buffer.take_until(mark)
    if ending != b"--":
        raise Malformed("a boundary is followed by something else")
    async for _ in chunks:  # what follows the closing boundary means nothing, but has to arrive
        pass
