"""Large bodies, from whoever: most are refused unread, and the others share what memory there is for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.faults.under_attack import withstand
from tests.peers.gateway import hospital
from tests.peers.ia_vendor import ia_vendor
from tests.peers.ia_ward import callbacks, invoke, ward

pytestmark = pytest.mark.slow


def shapes(size: int) -> Iterator[bytes]:
    """What is dear to parse, of some MiB."""
    yield b"[" + b"[]," * (size // 3) + b"[]]"
    yield b"[" * size
    yield b"[" + b'{"a":1},' * (size // 8) + b"1]"
    yield b'{"context": {' + b",".join(b'"%d":0' % n for n in range(size // 12)) + b"}}"
    yield b'"' + b"\\u0041" * (size // 6) + b'"'
    yield b"[" + b"0.1234567," * (size // 10) + b"1]"


async def post(url: str, body: bytes, token: str | None, told: list[int]) -> None:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))) as http,
            http.post(url, data=body, headers=headers) as response,
        ):
            told.append(response.status)
    except aiohttp.ClientConnectionError:
        told.append(413)  # refused and left while it was still being sent


@pytest.mark.parametrize(("size", "times"), [(4 * 2**20, 4), (2**20, 12), (500_000, 4)])
async def test_nobody_needs_a_token_to_be_refused_soon(tmp_path: Path, size: int, times: int) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        told: list[int] = []

        async def flood() -> None:
            bodies = list(shapes(size)) * times
            random.Random(7).shuffle(bodies)
            await asyncio.gather(*(post(house.app(), body, None, told) for body in bodies))

        await withstand(house, flood, f"{6 * times} bodies of {size / 2**20:.1f} MiB at /ia", seconds=90)
        assert told and set(told) <= {400, 413, 422, 503}, told


async def test_no_vendor_takes_the_memory_of_all(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            there = callbacks(vendor)
            told: list[int] = []

            async def flood() -> None:
                points = b'{"slideId": "slide-wsi", "data": {"result": {"type": "primitive", "content": '
                points += b'[{"polygons": [{"points": [' + b'{"x":0.1,"y":0.2},' * 400_000 + b"{}]}]}]}}}"
                bodies = [points, *shapes(8 * 2**20 - 100), b"x" * 30 * 2**20] * 2
                results = f"{there['url']}/applications/x/results"
                await asyncio.gather(*(post(results, body, there["token"], told) for body in bodies))

            await withstand(house, flood, "large results of a vendor", seconds=90)
            assert told and set(told) <= {400, 403, 404, 413, 422, 429, 503}, told
