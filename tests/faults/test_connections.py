"""Connections that say nothing, or next to nothing, keep nobody else out and stop nothing else."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import aiohttp
import pytest

from tests.faults.under_attack import withstand
from tests.peers.crowd import crowd
from tests.peers.dicom_samples import encode, make_study
from tests.peers.gateway import TOKENS, TRAUMA, Hospital, hospital

pytestmark = pytest.mark.slow


async def upload(house: Hospital) -> str:
    [instance] = make_study(1)
    house.secrets |= {str(instance.PatientID), str(instance.AccessionNumber)}
    async with (
        aiohttp.ClientSession() as fresh,
        fresh.post(
            f"{house.gateway.url}/dicomweb/{TRAUMA}/studies",
            data=encode(instance),
            headers={"Authorization": f"Bearer {TOKENS['operator']}", "Content-Type": "application/dicom"},
        ) as response,
    ):
        assert response.status == 200, await response.text()
    return str(instance.StudyInstanceUID)


@pytest.mark.parametrize(
    ("addresses", "stubborn"),
    [(["127.0.0.1"], False), (["127.0.0.2"], True), (["127.0.0.2", "127.0.0.3", "127.0.0.4"], True)],
    ids=["from-the-users-address", "from-one", "from-several"],
)
async def test_the_silent_and_the_trickling_keep_nobody_out(
    tmp_path: Path, addresses: list[str], stubborn: bool
) -> None:
    async with hospital(tmp_path) as house:
        gateway = await house.start(open_files=1024)
        assert resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE) == (1024, 1024)
        came: list[str] = []

        async def send_a_study() -> None:
            await asyncio.sleep(3)
            came.append(await upload(house))
            await asyncio.sleep(3)

        async with crowd(gateway.url, 1100, addresses, stubborn=stubborn):
            await withstand(house, send_a_study, "1,100 connections", seconds=90)
        async with asyncio.timeout(60):
            while not any(
                job["study"]["study_instance_uid"] in came
                for job in (await house.api("GET", "jobs"))[1]["jobs"]
            ):
                await asyncio.sleep(0.1)
