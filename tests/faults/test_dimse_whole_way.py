"""The whole way by DIMSE: out of a PACS, into it, and in by our own door; also when the gateway is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydicom.dataset import Dataset

from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_study, write_study
from tests.peers.dimse import AET, head
from tests.peers.gateway import TRAUMA, Hospital, hospital
from tests.peers.orthanc import Orthanc, orthanc
from tests.peers.ports import free_port

pytestmark = pytest.mark.slow


@dataclass
class Site:
    house: Hospital
    pacs: Orthanc
    port: int


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    port = free_port()
    known = {"gateway": (AET, "127.0.0.1", port)}
    with orthanc(tmp_path / "orthanc", modalities=known, check_called_aet=True) as pacs:
        async with hospital(tmp_path, database_url) as house:
            house.configuration["dimse"] = {
                "ae_title": AET,
                "host": "127.0.0.1",
                "port": port,
                "peers": [{"ae_title": "MODALITY", "host": "127.0.0.1"}],
            }
            house.configuration["archives"]["pacs"] = {
                "kind": "dimse",
                "host": "127.0.0.1",
                "port": pacs.dicom_port,
                "ae_title": "ORTHANC",
            }
            house.configuration["destinations"]["pacs"] = {"kind": "c-store", "archive": "pacs"}
            house.application.update(
                archives=["vna", "pacs"],
                deliver=["sectra", "pacs"],
                ae_title="TRAUMA",
            )
            yield Site(house, pacs, port)


def filed(site: Site, files: list[Dataset]) -> str:
    folder = site.house.folder / "files"
    folder.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        file.PatientName = "Zyxwvut^Sent"
        (folder / f"{number}.dcm").write_bytes(encode(file))
    site.pacs.upload(sorted(folder.iterdir()))
    site.house.secrets |= {"Zyxwvut", str(files[0].PatientID), str(files[0].AccessionNumber)}
    return str(files[0].StudyInstanceUID)


def in_pacs(site: Site, study: str) -> int:
    (found,) = [
        known
        for known in site.pacs.get("/studies?expand")
        if known["MainDicomTags"]["StudyInstanceUID"] == study
    ]
    return len(site.pacs.get(f"/studies/{found['ID']}/instances"))


@pytest.mark.parametrize("retrieve", ["move", "get"])
async def test_out_of_the_pacs_and_the_results_into_it(site, retrieve):
    house = site.house
    house.configuration["archives"]["pacs"]["retrieve"] = retrieve
    study = filed(site, list(make_study(5, series=2)))
    await house.start()
    job = await house.settled((await house.ask(study_instance_uid=study))["id"])
    assert job["state"] == "done", job
    assert job["study"]["archive"] == "pacs"
    proof = job["proof"]
    assert (proof["promised"], proof["sent"], proof["acknowledged"]) == (5, 5, 5)
    assert proof["received"] == proof["stored"] > 0
    assert in_pacs(site, study) == 5 + proof["stored"]
    await house.until(lambda: not list((house.folder / "data" / "spool").iterdir()), "its files are gone")


async def test_a_study_that_is_sent_to_us_is_analysed(site, tmp_path):
    house = site.house
    paths = write_study(tmp_path / "study", 4, series=2)
    first = head(paths[0])
    house.secrets |= {str(first.PatientID), str(first.AccessionNumber)}
    await house.start()
    sent = await asyncio.to_thread(dcmtk.send, site.port, paths, calling="MODALITY", called="TRAUMA")
    assert sent.returncode == 0, sent.stderr
    job = await the_job_of(house, str(first.StudyInstanceUID))
    assert job["state"] == "done", job
    assert job["study"]["archive"] == f"arrived/{TRAUMA}"
    assert job["proof"]["promised"] == job["proof"]["acknowledged"] == 4
    assert in_pacs(site, str(first.StudyInstanceUID)) == job["proof"]["stored"]


async def test_a_study_that_was_sent_before_a_kill_is_analysed_after_it(site, tmp_path):
    house = site.house
    house.application["settle"] = "2s"
    paths = write_study(tmp_path / "study", 3)
    first = head(paths[0])
    house.secrets |= {str(first.PatientID), str(first.AccessionNumber)}
    gateway = await house.start()
    sent = await asyncio.to_thread(dcmtk.send, site.port, paths, calling="MODALITY", called="TRAUMA")
    assert sent.returncode == 0, sent.stderr
    await gateway.kill()
    await house.start()
    job = await the_job_of(house, str(first.StudyInstanceUID))
    assert job["state"] == "done", job
    assert job["proof"]["acknowledged"] == 3


async def test_killed_amid_a_study_from_the_pacs(site):
    """What lies in the spool is there for the next one; the vendor gets each instance once."""
    house = site.house
    study = filed(site, list(make_study(60, series=2, size=512)))
    gateway = await house.start()
    asked = await house.ask(study_instance_uid=study)
    spool = house.folder / "data" / "spool"
    await house.until(lambda: len(list(spool.glob("*/study-*/*.dcm"))) >= 5, "instances arrive")
    await gateway.kill()
    await house.start()
    job = await house.settled(asked["id"])
    assert job["state"] == "done", job
    assert job["proof"]["sent"] == job["proof"]["acknowledged"] == 60


async def the_job_of(house: Hospital, study: str) -> Any:
    async with asyncio.timeout(40):
        while True:
            _, listed = await house.api("GET", "jobs", params={"study": study})
            if listed["jobs"]:
                return await house.settled(listed["jobs"][0]["id"])
            await asyncio.sleep(0.05)
