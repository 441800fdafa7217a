"""A slide's files on their way to a vendor that may not know whose it is: rewritten as they stream, under
other names, and without those that can't be."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.contract import Retryable, Unsuitable
from gateway.dicom.part10 import NotDicom
from gateway.sectra.files import SlideFile
from gateway.work.disguise import Disguise

_NO_DICOM = "a file is no DICOM, and nothing else can be de-identified"


class Nameless:
    """Of one answer of Sectra."""

    def __init__(self, files: AsyncIterator[SlideFile], disguise: Disguise) -> None:
        self._parts = self._rewrite(files, disguise)
        self._first: tuple[bool, AsyncIterator[bytes]] | None = None
        self._boundary = secrets.token_hex(16)
        self._left_out: Counter[str] = Counter()

    @property
    def left_out(self) -> str:
        """How many files, and why."""
        return "; ".join(f"{why} ({count} times)" for why, count in sorted(self._left_out.items()))

    async def begin(self) -> bool:
        """False: nothing may leave."""
        self._first = await anext(self._parts, None)
        return self._first is not None

    @property
    def headers(self) -> Mapping[str, str]:
        assert self._first is not None
        alone, _ = self._first
        if alone:
            return {"Content-Type": "application/octet-stream", "Content-Disposition": _named(1)}
        return {"Content-Type": f"multipart/related; boundary={self._boundary}"}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        assert self._first is not None
        alone, first = self._first
        if alone:
            async for chunk in first:
                yield chunk
            return
        number = 1
        part: tuple[bool, AsyncIterator[bytes]] | None = self._first
        while part is not None:
            head = f"Content-Disposition: {_named(number)}\r\nContent-Type: application/octet-stream"
            yield f"--{self._boundary}\r\n{head}\r\n\r\n".encode()
            async for chunk in part[1]:
                yield chunk
            yield b"\r\n"
            part, number = await anext(self._parts, None), number + 1
        yield f"--{self._boundary}--\r\n".encode()

    async def _rewrite(
        self, files: AsyncIterator[SlideFile], disguise: Disguise
    ) -> AsyncGenerator[tuple[bool, AsyncIterator[bytes]], None]:
        """Each file that may leave: whether it is the only one, and what is in it."""
        async for file in files:
            pieces = disguise.rewritten(_bytes_of(file))
            try:
                first = await anext(pieces)
            except Unsuitable as refusal:
                self._left_out[refusal.message] += 1
            except NotDicom:
                self._left_out[_NO_DICOM] += 1
            else:
                yield file.alone, _from(first, pieces)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    try:
        async for piece in rest:
            yield piece
    except NotDicom:
        raise Retryable("a file of the slide isn't whole", "Have the slide checked in Sectra.") from None


async def _bytes_of(file: SlideFile) -> AsyncIterator[bytes]:
    async for chunk in file.chunks():
        yield chunk if isinstance(chunk, bytes) else bytes(chunk)


def _named(number: int) -> str:
    return f'attachment; filename="{number:04}.dcm"'
