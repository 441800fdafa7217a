"""A vendor that takes a study by STOW-RS and stores its results with us the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pydicom
from pydicom.uid import UID, generate_uid

from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.serve import serve
from tests.peers.dicom_kinds import KINDS, Somebody
from tests.peers.dicom_samples import encode
from tests.peers.gateway import Hospital, hospital

TOKEN = "the-vendors-own-word"


def make_result(archive: ArchiveState, uid: str, **changed: str) -> bytes:
    """A picture of the study's first instance, as a vendor would make it."""
    dataset = pydicom.dcmread(BytesIO(archive.instances[uid].data))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    for name, value in changed.items():
        setattr(dataset, name, value)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_kinds(archive: ArchiveState, uid: str) -> list[bytes]:
    """Of all that a vendor may make of a study: each refers to that instance of it, wherever it does."""
    seen = pydicom.dcmread(BytesIO(archive.instances[uid].data))
    made = []
    for kind in (
        "report",
        "presentation",
        "segmentation",
        "key objects",
        "structures",
        "plan",
        "dose",
        "marks",
    ):
        result = KINDS[kind](Somebody("Nobody^No", "none", "a finding", "Nobody^Else", "none"))
        aim(result, str(seen.StudyInstanceUID), uid)
        for keyword in (
            "PatientID",
            "PatientName",
            "AccessionNumber",
            "StudyID",
            "PatientBirthDate",
            "PatientSex",
        ):
            setattr(result, keyword, seen.get(keyword, ""))
        made.append(encode(result))
    return made


def aim(dataset: pydicom.Dataset, study: str, image: str) -> None:
    for element in dataset:
        if element.keyword == "StudyInstanceUID":
            element.value = study
        elif element.keyword == "ReferencedSOPInstanceUID":
            element.value = study if dataset.get("RTReferencedSeriesSequence") else image
        for item in element.value if element.VR == "SQ" else ():
            aim(item, study, image)


async def push(house: Hospital, *files: bytes, token: str = TOKEN) -> int:
    boundary = uuid4().hex
    begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(begin + file + b"\r\n" for file in files) + f"--{boundary}--".encode()
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Authorization": f"Bearer {token}",
    }
    url = f"{house.gateway.url}/adapters/pushing/studies"
    async with house.http.post(url, data=body, headers=headers) as answer:
        return answer.status


@asynccontextmanager
async def pushing(folder: Path, **application: str) -> AsyncIterator[tuple[Hospital, ArchiveState]]:
    """A hospital whose vendor does, and what the vendor has."""
    vendor = ArchiveState()
    runner, port = await serve(simulated.make_app(vendor, files=[]))
    try:
        async with hospital(folder) as house:
            house.configuration["adapters"]["pushing"] = {
                "kind": "dicomweb",
                "url": f"http://127.0.0.1:{port}/dicom-web",
                "push_token": TOKEN,
                "quiet": "1s",
                "first_poll": "200ms",
            }
            house.configuration["profiles"] = {"research": {}}
            house.application.update(adapter="pushing", **application)
            await house.start()
            yield house, vendor
    finally:
        await runner.cleanup()


async def test_what_a_vendor_stores_with_us_is_its_jobs_result(tmp_path: Path) -> None:
    async with pushing(tmp_path) as (house, vendor):
        patient, stranger = house.admit(), house.admit()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "analysing")
        assert sorted(vendor.stored) == sorted(patient.instances)

        result = make_result(house.archive, patient.instances[0])
        foreign = make_result(house.archive, stranger.instances[0])
        assert await push(house, result, token="another word") == 401
        assert await push(house, foreign) == 409, "no job waits for a result of that study"
        assert await push(house, result, foreign) == 202
        assert await push(house, result) == 200, "one that comes again is the same one"

        job = await house.settled(job["id"])
        assert (job["state"], job["proof"]["received"], job["proof"]["stored"]) == ("done", 1, 1)
        assert len(house.stored_of(patient.study)) == 1 and house.stored_of(stranger.study) == []
        assert await push(house, result) == 409, "the job has its results"
        assert TOKEN not in house.gateway.log


async def test_what_it_stores_by_the_aliases_that_it_knows_is_the_patients(tmp_path: Path) -> None:
    async with pushing(tmp_path, deidentify="research") as (house, vendor):
        patient = house.admit()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "analysing")
        assert len(vendor.stored) == len(patient.instances)
        assert not set(vendor.stored) & set(patient.instances)

        known = min(vendor.stored)
        result = make_result(vendor, known)
        dataset = pydicom.dcmread(BytesIO(result))
        results = [result, *make_kinds(vendor, known)]
        assert await push(house, *results) == 200
        job = await house.settled(job["id"])
        assert job["state"] == "done", job
        assert job["proof"]["received"] == job["proof"]["stored"] == len(results)
        original = house.archive.instances[patient.instances[0]].header
        stored = [house.archive.instances[uid].data for uid in house.stored_of(patient.study)]
        assert len(stored) == len(results)
        aliases = {str(dataset.PatientID), str(dataset.StudyInstanceUID), known}
        for data in stored:
            ours = pydicom.dcmread(BytesIO(data))
            assert (ours.PatientID, ours.PatientName) == (original.PatientID, original.PatientName)
            assert not [alias for alias in aliases if alias.encode() in data]
