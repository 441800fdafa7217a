"""SIGTERM is obeyed soon, whoever is connected and whatever is under way."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from gateway.simulate.front import Fault
from tests.faults.under_attack import knock
from tests.peers.gateway import TOKENS, TRAUMA, Hospital, hospital
from tests.peers.pulse import Delays, family

pytestmark = pytest.mark.slow

LISTENING, UPLOADING = 10.0, 20.0  # seconds, less those in which there was no processor for it
POLITE = f"Host: gateway\r\nAuthorization: Bearer {TOKENS['operator']}\r\n"


async def stop(house: Hospital) -> float:
    delays, began = Delays(family()), time.monotonic()
    stopping = asyncio.create_task(house.gateway.stop())
    while not (await asyncio.wait([stopping], timeout=0.1))[0]:
        delays.seconds()
    assert await stopping == 0
    took = time.monotonic() - began
    print(f"\nstopped within {took:.1f} s, {delays.seconds():.1f} of them without a processor")
    return took - delays.seconds()


async def test_listeners_that_say_nothing_are_taken_leave_of(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for _ in range(5):
                listening = await http.get(f"{house.gateway.url}/api/v1/events")
                assert await listening.content.readline() == b": listening\n"
            for _ in range(5):
                _, writer = await knock(house)
                writer.write(b"GET /api/v1/events HTTP/1.1\r\n" + POLITE.encode() + b"\r\n")
            assert await stop(house) < LISTENING


async def test_an_upload_to_us_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        for target, kind in ((f"/dicomweb/{TRAUMA}/studies", "dicom"), (f"/ia/{TRAUMA}", "json")):
            _, writer = await knock(house)
            head = f"POST {target} HTTP/1.1\r\n{POLITE}Content-Type: application/{kind}\r\n"
            writer.write(f"{head}Content-Length: 1000000\r\n\r\n{{".encode())
        await asyncio.sleep(0.5)
        assert await stop(house) < UPLOADING


async def test_an_upload_to_a_vendor_that_hangs_is_handed_back(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        patient = house.admit()
        house.milvue.front.faults.append(Fault(method="POST", path="/v3/studies$", delay=300))
        await house.fire(patient.slide)
        await house.job_on(patient.slide, "submitting")
        await house.until(lambda: house.milvue.front.calls, "the upload is under way")
        assert await stop(house) < UPLOADING
