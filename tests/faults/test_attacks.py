"""What is packed, guessed and listed without end: users are served meanwhile, and the process stays small."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest

from tests.faults.under_attack import withstand
from tests.peers.gateway import TOKENS, TRAUMA, hospital

pytestmark = pytest.mark.slow


@asynccontextmanager
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0), limit=8)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield http


async def test_bodies_that_come_packed_are_not_unpacked(tmp_path: Path) -> None:
    packed = await asyncio.to_thread(gzip.compress, bytes(2**28), 1)
    async with hospital(tmp_path) as house:
        gateway = await house.start()
        told: Counter[int] = Counter()

        async def flood() -> None:
            paths = f"/ia/{TRAUMA}", "/api/v1/jobs", "/adapters/milvue/x", f"/dicomweb/{TRAUMA}/studies", "/x"
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            headers["Authorization"] = f"Bearer {TOKENS['operator']}"
            async with stranger() as http:

                async def post(path: str) -> None:
                    with suppress(aiohttp.ClientConnectionError):  # refused while it was still being sent
                        async with http.post(gateway.url + path, data=packed, headers=headers) as response:
                            told[response.status] += 1

                await asyncio.gather(*(post(path) for path in paths * 20))

        await withstand(house, flood, "packed bodies at every path", seconds=90)
        assert told and set(told) <= {404, 405, 413, 415}, told


async def test_guesses_from_one_address_and_from_many(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        gateway = await house.start()
        told: Counter[int] = Counter()

        async def flood() -> None:
            async with stranger() as http:

                async def guess(number: int) -> None:
                    headers = {"Authorization": f"Bearer wrong-{number}"}
                    path = ("/api/v1/jobs", "/dicomweb/x/studies", "/adapters/milvue/x")[number % 3]
                    with suppress(aiohttp.ClientConnectionError):
                        async with http.get(gateway.url + path, headers=headers) as response:
                            told[response.status] += 1

                await asyncio.gather(*map(guess, range(3000)))

        await withstand(house, flood, "3,000 guesses", seconds=90)
        assert told[429] > 1000 and set(told) <= {401, 403, 404, 405, 429}, told


@contextmanager
def endless_archive() -> Iterator[str]:
    """Whatever is asked, it lists as many studies of nothing as there is room for."""

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(b"[")
                for _ in range(30):
                    self.wfile.write(b"{}," * (2**20 // 3))
                self.wfile.write(b"{}]")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        finally:
            server.shutdown()


async def test_lists_of_an_archive_that_hold_nothing_and_have_no_end(tmp_path: Path) -> None:
    with endless_archive() as url:
        async with hospital(tmp_path) as house:
            house.configuration["archives"]["endless"] = {"kind": "dicomweb", "url": url}
            far = deepcopy(house.application) | {"archives": ["endless"], "retry": {"attempts": 1}}
            house.configuration["departments"]["emergency"]["applications"]["far"] = far
            await house.start()

            async def attack() -> None:
                for number in range(6):
                    asked = {"application": "far", "study_instance_uid": f"1.2.3.{number}"}
                    assert (await house.api("POST", "jobs", asked))[0] == 202
                while len((await house.api("GET", "jobs?application=far&state=held"))[1]["jobs"]) < 6:
                    await asyncio.sleep(0.1)

            await withstand(house, attack, "lists without end", seconds=90)
