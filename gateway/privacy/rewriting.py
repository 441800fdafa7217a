"""An instance rewritten as it streams: its header is read, changed and written, its pixels pass unread."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final

from gateway.contract import Header
from gateway.dicom.inflation import Inflation
from gateway.dicom.part10 import (
    DEFLATED,
    MAX_HEADER,
    PIXELS,
    Meta,
    NotDicom,
    find_element,
    read_meta,
)
from gateway.privacy.elements import Writing
from gateway.privacy.header import HeaderRewriter
from gateway.privacy.meta import write_meta
from gateway.privacy.tail import Tail

_LARGEST: Final = 64 * 2**20  # of a header, which is held in memory
_SLOWLY_READ: Final = 64 * 1024


def rewritten_header(header: Header, rewriter: HeaderRewriter) -> Header:
    """What an adapter is told of an instance before it has seen a byte of it."""
    uid = rewriter.pseudonyms.uid
    return replace(
        header,
        study_instance_uid=uid(header.study_instance_uid),
        series_instance_uid=uid(header.series_instance_uid),
        sop_instance_uid=uid(header.sop_instance_uid),
    )


async def rewrite(
    chunks: AsyncIterator[bytes], rewriter: HeaderRewriter, keep: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[bytes]:
    """All bytes of an instance, as a vendor may have them. Everything is asked of `chunks`, so that whoever
    checks what comes in sees its end. `keep` is awaited when all pseudonyms are issued, before any leaves."""
    taken, meta = await _take_meta(chunks)
    if meta.transfer_syntax != DEFLATED:
        async for piece in _rewrite_dataset(taken[meta.dataset :], chunks, meta, rewriter, keep):
            yield piece
        return
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    inflated = _inflate(taken[meta.dataset :], chunks)
    file_meta = True
    async for piece in _rewrite_dataset(b"", inflated, meta, rewriter, keep):
        if file_meta:
            yield piece
            file_meta = False
        elif packed := await asyncio.to_thread(deflate.compress, piece):
            yield packed
    yield deflate.flush()


async def _rewrite_dataset(
    taken: bytes,
    chunks: AsyncIterator[bytes],
    meta: Meta,
    rewriter: HeaderRewriter,
    keep: Callable[[], Awaitable[None]] | None,
) -> AsyncIterator[bytes]:
    """The file meta information, the header, and what follows."""
    begun = bytearray(taken)
    looked = 0
    while (end := find_element(bytes(begun), meta.transfer_syntax, PIXELS)) is None:
        looked = 2 * len(begun)
        more = False
        async for chunk in chunks:
            begun += chunk
            more = True
            if len(begun) >= looked:
                break
        if len(begun) > _LARGEST:
            raise NotDicom("the header of an instance doesn't end")
        if not more:
            end = len(begun)
            break
    header = bytes(begun[:end])
    if len(header) > _SLOWLY_READ:
        written = await asyncio.to_thread(rewriter.rewrite, header, meta.transfer_syntax)
    else:
        written = rewriter.rewrite(header, meta.transfer_syntax)
    file_meta = write_meta(meta, rewriter.pseudonyms.uid, written.sop_class)
    if keep is not None:
        await keep()
    yield file_meta
    yield written.header
    tail = Tail(Writing(meta.transfer_syntax, header))
    for piece in tail.feed(memoryview(bytes(begun[end:]))):
        yield bytes(piece)
    async for chunk in chunks:
        for piece in tail.feed(memoryview(chunk)):
            yield chunk if piece.obj is chunk and len(piece) == len(chunk) else bytes(piece)


async def _take_meta(chunks: AsyncIterator[bytes]) -> tuple[bytes, Meta]:
    taken = bytearray()
    async for chunk in chunks:
        taken += chunk
        if (meta := read_meta(bytes(taken))) is not None:
            return bytes(taken), meta
        if len(taken) > MAX_HEADER:
            break
    raise NotDicom("the file meta information of an instance doesn't end")


async def _inflate(begun: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflation = Inflation()
    for piece in await asyncio.to_thread(_unpack, inflation, begun):
        yield piece
    async for chunk in chunks:
        for piece in await asyncio.to_thread(_unpack, inflation, chunk):
            yield piece


def _unpack(inflation: Inflation, packed: bytes) -> list[bytes]:
    return list(inflation.feed(packed))
