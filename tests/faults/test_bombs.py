"""DICOM that is small on the wire and large behind it, and callers of the DICOM port who keep it busy: users
are served meanwhile, and the process stays small."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from pydicom.uid import generate_uid

from gateway.simulate.milvue import Behaviour
from tests.faults.under_attack import withstand
from tests.peers import dcmtk
from tests.peers.bombs import deflated_bomb, nested
from tests.peers.dicom_samples import write_study
from tests.peers.gateway import TOKENS, TRAUMA, Hospital, hospital
from tests.peers.ports import free_port

pytestmark = pytest.mark.slow


def fresh_bomb() -> bytes:
    return deflated_bomb(generate_uid(), generate_uid(), generate_uid())


async def test_uploads_that_hold_gigabytes(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        bodies = [await asyncio.to_thread(fresh_bomb) for _ in range(2)]
        bodies.append(nested(generate_uid(), generate_uid(), generate_uid(), 20_000))
        answers: list[int] = []

        async def upload(data: bytes) -> None:
            headers = {"Authorization": f"Bearer {TOKENS['operator']}", "Content-Type": "application/dicom"}
            url = f"{house.gateway.url}/dicomweb/{TRAUMA}/studies"
            async with (
                aiohttp.ClientSession() as fresh,
                fresh.post(url, data=data, headers=headers) as response,
            ):
                answers.append(response.status)

        async def attack() -> None:
            await asyncio.gather(*map(upload, bodies * 2))

        await withstand(house, attack, "uploads that hold gigabytes", seconds=90)
        assert answers == [409] * 6


async def test_a_result_that_holds_gigabytes(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        house.application["retry"] = {"attempts": 2, "first": "100ms", "most": "100ms"}
        house.milvue.behaviours = {"*": Behaviour(delay=0.1, spoil="bomb")}
        await house.start()
        patients = [house.admit() for _ in range(3)]

        async def attack() -> None:
            for patient in patients:
                await house.fire(patient.slide)
            for patient in patients:
                job = await house.job_on(patient.slide, "held")
                assert "larger than any real one" in job["error"]["message"]

        await withstand(house, attack, "results that hold gigabytes", seconds=90)


async def test_a_dicom_port_full_of_silence(tmp_path: Path) -> None:
    port = free_port()
    async with hospital(tmp_path) as house:
        house.configuration["dimse"] = {
            "ae_title": "GATEWAY",
            "host": "127.0.0.1",
            "port": port,
            "peers": [{"ae_title": "MODALITY", "host": "127.0.0.1"}, {"ae_title": "X", "host": "127.0.0.2"}],
        }
        house.application["ae_title"] = "TRAUMA"
        await house.start()
        paths = write_study(tmp_path / "study", 2)
        wires: list[socket.socket] = []

        async def attack() -> None:
            for number in range(800):
                wire = socket.create_connection(("127.0.0.1", port), 30, (f"127.0.0.{1 + number % 2}", 0))
                wire.send(b"\1\0")
                wires.append(wire)
                await asyncio.sleep(0)
            assert threads_of(house) < 60
            sent = await asyncio.to_thread(dcmtk.send, port, paths, calling="MODALITY", called="TRAUMA")
            assert sent.returncode == 0, sent.stdout

        try:
            await withstand(house, attack, "800 connections to the DICOM port", seconds=90)
        finally:
            for wire in wires:
                with closing(wire):
                    pass


def threads_of(house: Hospital) -> int:
    return len(list(Path(f"/proc/{house.gateway.process.pid}/task").iterdir()))
