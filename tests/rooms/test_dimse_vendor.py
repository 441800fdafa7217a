"""A vendor that takes studies by C-STORE and stores its results with us, dcmtk's programs on its side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.dimse import AET
from tests.peers.gateway import Hospital, Patient, hospital
from tests.peers.ports import free_port

VENDOR = "STORESCP"


@dataclass
class Site:
    house: Hospital
    port: int
    vendor: Path

    async def result(
        self, study: str, *, refers_to: str | None = None, calling: str = VENDOR, accession: str = ""
    ) -> str:
        """What the vendor stores with us; all that storescu says of it."""
        made = make_instance(study, generate_uid())
        made.PatientID = self.patient_id
        made.AccessionNumber = accession or made.AccessionNumber
        made.Modality = "OT"
        if refers_to is not None:
            reference = Dataset()
            reference.ReferencedSOPClassUID = made.SOPClassUID
            reference.ReferencedSOPInstanceUID = refers_to
            made.ReferencedImageSequence = [reference]
        else:
            del made.ReferencedImageSequence
        path = self.house.folder / f"{made.SOPInstanceUID}.dcm"
        path.write_bytes(encode(made))
        sent = await asyncio.to_thread(
            dcmtk.send, self.port, [path], calling=calling, called=AET, options=["-d"]
        )
        return sent.stdout + sent.stderr

    def admit(self) -> Patient:
        patient = self.house.admit(3, slide=False)
        self.patient_id = str(
            next(
                instance.header.PatientID
                for instance in self.house.archive.instances.values()
                if str(instance.header.StudyInstanceUID) == patient.study
            )
        )
        return patient


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    port = free_port()
    vendor = tmp_path / "vendor"
    with dcmtk.receiver(vendor, VENDOR) as vendor_port:
        async with hospital(tmp_path, database_url) as house:
            house.configuration["dimse"] = {"ae_title": AET, "host": "127.0.0.1", "port": port}
            house.configuration["adapters"]["node"] = {
                "kind": "dimse",
                "host": "127.0.0.1",
                "port": vendor_port,
                "ae_title": VENDOR,
                "quiet": "1s",
                "first_poll": "100ms",
                "slowest_poll": "300ms",
            }
            house.application.update(adapter="node")
            yield Site(house, port, vendor)


def stored_at(folder: Path) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}


async def test_the_whole_way_also_through_a_kill(site):
    house = site.house
    patient = site.admit()
    gateway = await house.start()
    asked = await house.ask(study_instance_uid=patient.study)
    await house.settled(asked["id"], "analysing")
    assert stored_at(site.vendor) == set(patient.instances)
    assert "0x0124" in await site.result(generate_uid())
    assert "Calling AE Title Not Recognized" in await site.result(patient.study, calling="STRANGER")
    for _ in range(2):
        assert "0x0000" in await site.result(patient.study)
    await gateway.kill()
    await house.start()
    job = await house.settled(asked["id"])
    assert job["state"] == "done", job
    proof = job["proof"]
    assert (proof["promised"], proof["sent"], proof["acknowledged"]) == (3, 3, 3)
    assert proof["received"] == proof["stored"] == len(house.stored_of(patient.study)) == 2
    inbox = house.folder / "data" / "inbox"
    await house.until(lambda: not list(inbox.glob("[!.]*")), "its files are gone")
    assert "no job here waits" in await site.result(patient.study)


async def test_without_a_storage_service_nothing_starts(site):
    del site.house.configuration["dimse"]
    with pytest.raises(
        RuntimeError, match=r"dimse is missing: the vendor of adapters\.node stores its results"
    ):
        await site.house.start()


async def test_a_result_that_only_refers_to_the_study_is_held(site):
    house = site.house
    patient = site.admit()
    await house.start()
    asked = await house.ask(study_instance_uid=patient.study)
    await house.settled(asked["id"], "analysing")
    assert "0x0000" in await site.result(generate_uid(), refers_to=patient.instances[1])
    job = await house.settled(asked["id"], "held")
    assert "another study" in job["error"]["message"]
    assert house.stored_of(patient.study) == []


async def test_of_two_jobs_on_one_study_the_older_gets_its_results_first(site):
    house = site.house
    patient = site.admit()
    await house.start()
    jobs: list[Any] = []
    for _ in range(2):
        jobs.append(await house.ask(study_instance_uid=patient.study))
        await house.settled(jobs[-1]["id"], "analysing")
    assert jobs[0]["id"] != jobs[1]["id"]
    await site.result(patient.study)
    older = await house.settled(jobs[0]["id"])
    assert (older["state"], older["proof"]["received"]) == ("done", 1), older
    assert (await house.settled(jobs[1]["id"], "analysing"))["proof"]["received"] is None
    await site.result(patient.study)
    younger = await house.settled(jobs[1]["id"])
    assert (younger["state"], younger["proof"]["received"]) == ("done", 1), younger


async def test_who_makes_nothing_anew_of_an_unchanged_study_is_told_apart(site):
    """The second job ends with what is known: this vendor had all of it before, and what came of it then."""
    house = site.house
    house.application["result_within"] = "8s"
    patient = site.admit()
    await house.start()
    first = await house.ask(study_instance_uid=patient.study)
    await house.settled(first["id"], "analysing")
    await site.result(patient.study)
    await house.settled(first["id"], "done")
    second = await house.ask(study_instance_uid=patient.study)
    held = await house.settled(second["id"], "held")
    said, advice = held["error"]["message"], held["error"]["advice"]
    assert "no result within 8 s: The vendor has the study; nothing has come back yet." in said
    assert f"the very same images for job {first['id']}" in said
    assert "made a result then (objects: 1)" in said
    assert "cancel this one if that will do" in advice
    await site.result(patient.study)  # and yet it has made one
    assert (await house.api("POST", f"jobs/{second['id']}/resume"))[0] == 200
    await house.settled(second["id"], "done")


async def test_who_knows_a_study_by_aliases_alone_stores_its_results_by_them(site):
    """They come back to the patient; what no alias leads to is refused, or held."""
    house = site.house
    house.configuration["profiles"] = {"research": {}}
    house.application["deidentify"] = "research"
    patient = site.admit()
    await house.start()
    asked = await house.ask(study_instance_uid=patient.study)
    await house.settled(asked["id"], "analysing")
    assert not stored_at(site.vendor) & set(patient.instances)
    known = [dcmread(path) for path in site.vendor.iterdir()]
    [alias] = {str(each.StudyInstanceUID) for each in known}
    site.patient_id = str(known[0].PatientID)
    order = str(known[0].AccessionNumber)
    assert not {patient.study, patient.accession} & {alias, order}
    assert "0x0124" in await site.result(generate_uid(prefix="2.25."))
    assert "0x0000" in await site.result(alias, refers_to=str(known[1].SOPInstanceUID), accession=order)
    job = await house.settled(asked["id"])
    assert (job["state"], job["proof"]["received"], job["proof"]["stored"]) == ("done", 1, 1), job
    [uid] = house.stored_of(patient.study)
    stored = dcmread(BytesIO(house.archive.instances[uid].data))
    original = house.archive.instances[patient.instances[0]].header
    assert (stored.PatientID, stored.AccessionNumber) == (original.PatientID, patient.accession)
    assert stored.ReferencedImageSequence[0].ReferencedSOPInstanceUID in patient.instances

    asked = await house.ask(study_instance_uid=patient.study)
    await house.settled(asked["id"], "analysing")
    site.patient_id = "P" + "A" * 15
    assert "0x0000" in await site.result(alias, accession=order)
    job = await house.settled(asked["id"], "held")
    assert "somebody else" in job["error"]["message"]
