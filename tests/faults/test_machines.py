"""Gateways on machines that share no folder, only a database and a bucket: one takes, another works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.serve import serve
from tests.daemon.test_pushed import TOKEN, make_result, push
from tests.peers import dcmtk
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, head
from tests.peers.gateway import TOKENS, TRAUMA, Gateway, Hospital, hospital
from tests.peers.ports import free_port
from tests.peers.s3 import SECRET, S3Server, s3

pytestmark = pytest.mark.slow


@dataclass
class Site:
    house: Hospital
    s3: S3Server
    machines: int = 0

    async def start(self, *arguments: str, dimse: int | None = None) -> Gateway:
        """A machine with a folder of its own."""
        self.machines += 1
        self.house.configuration["data_dir"] = str(self.house.folder / f"machine-{self.machines}")
        self.house.configuration["dimse"] = {
            "ae_title": AET,
            "host": "127.0.0.1",
            "port": dimse or free_port(),
            "peers": [{"ae_title": "MODALITY", "host": "127.0.0.1"}],
        }
        return await self.house.start(*arguments)

    async def stow(self, paths: list[Path]) -> int:
        boundary = "between"
        begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(begin + path.read_bytes() + b"\r\n" for path in paths) + f"--{boundary}--".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Authorization": f"Bearer {TOKENS['operator']}",
        }
        url = f"{self.house.gateway.url}/dicomweb/{TRAUMA}/studies"
        async with self.house.http.post(url, data=body, headers=headers) as answer:
            return answer.status

    def study(self, count: int) -> tuple[str, list[Path]]:
        paths = write_study(self.house.folder / f"study-{count}", count)
        first = head(paths[0])
        self.house.secrets |= {str(first.PatientID), str(first.AccessionNumber), "Sample^N"}
        return str(first.StudyInstanceUID), paths

    async def job_of(self, study: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                _, listed = await self.house.api("GET", "jobs", params={"study": study})
                if listed["jobs"]:
                    return await self.house.settled(listed["jobs"][0]["id"])
                await asyncio.sleep(0.1)

    async def until_empty(self) -> None:
        async with asyncio.timeout(90):
            while await asyncio.to_thread(self.s3.objects, "gateway/arrived"):
                await asyncio.sleep(0.5)


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    with s3() as server:
        async with hospital(tmp_path, database_url) as house:
            house.configuration["spool"] = server.settings
            house.application.update(ae_title="TRAUMA", settle="5s")
            house.secrets.add(SECRET)
            yield Site(house, server)


async def test_what_one_machine_took_another_works_on_though_the_first_is_gone(site: Site) -> None:
    house = site.house
    taking = await site.start("--only", "intake")
    study, paths = site.study(4)
    assert await site.stow(paths) == 200
    await taking.kill()
    assert len(site.s3.objects("gateway/arrived")) == 4

    await site.start("--only", "workers")
    await site.start("--only", "intake")  # to be asked
    job = await site.job_of(study)
    assert job["state"] == "done", job
    assert job["study"]["archive"] == f"arrived/{TRAUMA}"
    assert job["proof"]["promised"] == job["proof"]["acknowledged"] == 4
    assert sorted(house.milvue.arrivals.values()) == [1] * 4
    await site.until_empty()


async def test_what_a_modality_sent_to_one_machine_another_works_on(site: Site) -> None:
    house, port = site.house, free_port()
    taking = await site.start("--only", "workers", dimse=port)
    study, paths = site.study(3)
    await house.until(lambda: "storage service listens" in taking.log, "it takes")
    sent = await asyncio.to_thread(dcmtk.send, port, paths, calling="MODALITY", called="TRAUMA")
    assert sent.returncode == 0, sent.stderr
    await taking.kill()

    site.s3.stop()
    refused = free_port()
    await site.start(dimse=refused)
    other, more = site.study(2)
    assert await site.stow(more) == 503
    told = await asyncio.to_thread(
        dcmtk.send, refused, more, calling="MODALITY", called="TRAUMA", options=["-d"]
    )
    assert "0xa700" in (told.stdout + told.stderr).lower()
    site.s3.start()
    job = await site.job_of(study)
    assert job["state"] == "done", job
    assert await site.stow(more) == 200
    job = await site.job_of(other)
    assert job["state"] == "done", job
    assert set(house.milvue.arrivals.values()) == {1}, "nothing is sent twice"


async def test_a_result_that_was_pushed_to_one_machine_is_collected_by_another(site: Site) -> None:
    house, vendor = site.house, ArchiveState()
    runner, port = await serve(simulated.make_app(vendor, files=[]))
    try:
        house.configuration["adapters"]["pushing"] = {
            "kind": "dicomweb",
            "url": f"http://127.0.0.1:{port}/dicom-web",
            "push_token": TOKEN,
            "quiet": "2s",
            "first_poll": "200ms",
        }
        house.application["adapter"] = "pushing"
        await site.start("--only", "workers")
        await site.start("--only", "intake")
        patient = house.admit()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "analysing")
        assert await push(house, make_result(house.archive, patient.instances[0])) == 200
        job = await house.settled(job["id"])
        assert (job["state"], job["proof"]["received"], job["proof"]["stored"]) == ("done", 1, 1)
        await site.until_empty()
    finally:
        await runner.cleanup()
