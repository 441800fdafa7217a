"""A study that has grown since it was analysed, and a vendor that makes its result anew under the UID that it
had: what it made last is delivered, stands on the slide, and the history says so."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.uid import UID, generate_uid

from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.serve import serve
from tests.peers.dicom_samples import encode
from tests.peers.gateway import Hospital, Patient, hospital

RESULT = str(generate_uid())


def make_result(house: Hospital, patient: Patient, *, time: str, says: str) -> bytes:
    dataset = pydicom.dcmread(BytesIO(house.archive.instances[patient.instances[0]].data))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(RESULT)
    dataset.SeriesInstanceUID = f"{RESULT[:50]}.1"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = "20260101", time
    dataset.ImageComments = says
    dataset.PixelData = dataset.PixelData[:-4] + says.encode()[:4]
    return encode(dataset)


def grow(house: Hospital, patient: Patient) -> None:
    dataset = pydicom.dcmread(BytesIO(house.archive.instances[patient.instances[0]].data))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.InstanceNumber = 99
    house.archive.add(encode(dataset))


async def test_what_was_made_last_is_delivered_and_named(tmp_path: Path) -> None:
    vendor = ArchiveState()
    runner, port = await serve(simulated.make_app(vendor, files=[]))
    try:
        async with hospital(tmp_path) as house:
            house.configuration["adapters"]["web"] = {
                "kind": "dicomweb",
                "url": f"http://127.0.0.1:{port}/dicom-web",
                "quiet": "1s",
                "first_poll": "200ms",
            }
            house.application.update(adapter="web")
            await house.start()
            patient = house.admit()
            told = []
            for time, says in (("120000", "two images"), ("130000", "three images")):
                await house.fire(patient.slide)
                job = await house.job_on(patient.slide, "analysing")
                vendor.add(make_result(house, patient, time=time, says=says))
                job = await house.settled(job["id"])
                assert (job["state"], job["proof"]["received"], job["proof"]["stored"]) == ("done", 1, 1), job
                told.append(job)
                grow(house, patient)
            objects = [house.archive.instances[uid].header for uid in house.stored_of(patient.study)]
            assert [each.ImageComments for each in objects] == ["two images", "three images"]
            first, last = objects
            assert str(first.SOPInstanceUID) == RESULT != str(last.SOPInstanceUID)
            assert len(house.results_on(patient.slide)) == 1
            assert "anew under the UID of an earlier one" in str(house.results_on(patient.slide))
            kept = "stored and read back; 1 under another UID: something else stands there under the one"
            assert [kept in str(job["events"]) for job in told] == [False, True]
    finally:
        await runner.cleanup()
