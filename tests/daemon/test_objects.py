"""Result objects on their way into archives: put right, made where a vendor has none, never input again."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from aiohttp import web
from highdicom.sr import Comprehensive3DSR
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from gateway.simulate import milvue, milvue_results, samples
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.patients import SLIDE
from gateway.simulate.serve import serve
from gateway.simulate.slides import FileSpec
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.gateway import ARCHIVE_PASSWORD, Hospital, hospital
from tests.peers.orthanc import Orthanc, orthanc
from tests.rooms.test_result_objects import complaints

KNEE = samples.make_samples()[1]


@pytest.fixture
def vna(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc", password=ARCHIVE_PASSWORD) as running:
        paths = []
        for number, data in enumerate(KNEE.files):
            paths.append(tmp_path / f"{number}.dcm")
            paths[-1].write_bytes(data)
        running.upload(paths)
        yield running


@asynccontextmanager
async def findings_only(house: Hospital) -> AsyncIterator[MilvueState]:
    """A vendor that gives findings in JSON, and nothing else."""

    @web.middleware
    async def keep_objects(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if "inference_command" in request.query:
            return web.Response(status=204)
        return await handler(request)

    state = MilvueState(behaviours={"*": Behaviour(delay=0.1)})
    app = milvue.make_app(state)
    app.middlewares.append(keep_objects)
    runner, port = await serve(app)
    house.configuration["adapters"]["milvue"]["url"] = f"http://127.0.0.1:{port}"
    try:
        yield state
    finally:
        await runner.cleanup()


def said_of_archive(job: dict[str, Any]) -> list[str]:
    return [event["what"] for event in job["events"] if event["detail"].get("destination") == "vna"]


def stored_objects(vna: Orthanc, before: set[str], folder: Path) -> list[tuple[Path, Dataset]]:
    found: list[tuple[Path, Dataset]] = []
    for item in vna.get("/instances?expand"):
        if item["MainDicomTags"]["SOPInstanceUID"] not in before:
            data = requests.get(f"{vna.url}/instances/{item['ID']}/file", auth=vna.auth, timeout=30).content
            path = folder / f"{item['ID']}.dcm"
            path.write_bytes(data)
            found.append((path, dcmread(path)))
    return found


async def test_findings_become_objects_that_an_archive_holds_and_no_vendor_gets(
    tmp_path: Path, database_url: str, vna: Orthanc
) -> None:
    async with hospital(tmp_path, database_url) as house, findings_only(house) as vendor:
        house.configuration["archives"]["vna"]["url"] = vna.dicomweb
        images = vna.sop_instance_uids()
        await house.start()
        job = await house.ask(study_instance_uid=KNEE.identity.study_instance_uid)
        job = await house.settled(job["id"], "done")
        assert job["proof"] == {"promised": 2, "sent": 2, "acknowledged": 2, "received": 0, "stored": 0}
        told = said_of_archive(job)
        assert told == ["2 objects made of the findings stored and read back"]
        objects = stored_objects(vna, images, tmp_path)
        assert sorted(str(result.Modality) for _, result in objects) == ["OT", "SR"]
        for path, result in objects:
            assert complaints(path) == set()
            assert result.PatientID == KNEE.identity.patient_id
            assert (result.Manufacturer, result.ManufacturerModelName) == ("Milvue", "Milvue trauma")
            assert result.SoftwareVersions == milvue.VERSION
        before = {str(result.SOPInstanceUID) for _, result in objects}
        _, again = await house.api("POST", f"jobs/{job['id']}/retry")
        await house.settled(again["id"], "done")
        assert vendor.arrivals == dict.fromkeys(images, 2), "never its own results"
        for path, result in stored_objects(vna, images | before, tmp_path):
            assert complaints(path) == set()
            [first] = [each for _, each in objects if each.Modality == result.Modality]
            assert result.SeriesInstanceUID == first.SeriesInstanceUID, "viewers show the newest of a series"
            assert result.InstanceNumber > first.InstanceNumber
            assert (result.ContentDate, result.ContentTime) >= (first.ContentDate, first.ContentTime)
            if result.Modality == "SR":
                [study] = result.PredecessorDocumentsSequence
                [named] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
                assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
                assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
                assert named.ReferencedSOPClassUID == first.SOPClassUID
                assert Comprehensive3DSR.from_dataset(result).content
        assert len(vna.sop_instance_uids()) == len(images) + 4


@pytest.mark.parametrize(
    ("refused", "taken"),
    [
        ({Comprehensive3DSRStorage: 0x0122}, ComprehensiveSRStorage),
        ({Comprehensive3DSRStorage: 0xA900, ComprehensiveSRStorage: 0xC000}, EnhancedSRStorage),
    ],
    ids=["that says so", "in whatever words"],
)
async def test_an_archive_that_knows_older_reports_alone_gets_one_of_those(
    tmp_path: Path, database_url: str, refused: dict[str, int], taken: str
) -> None:
    async with hospital(tmp_path, database_url) as house, findings_only(house):
        house.archive.manners.refuse = refused
        patient = house.admit()
        await house.start()
        job = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        told = said_of_archive(job)
        assert told[-1].startswith("2 objects made of the findings stored and read back"), told
        assert f"as {UID(taken).name.removesuffix(' Storage')}" in told[-1]
        assert all(f"({reason:04X})" in told[-1] for reason in refused.values()), told
        _, again = await house.api("POST", f"jobs/{job['id']}/retry")
        await house.settled(again["id"], "done")
        reports = [result for result in results_of(house, patient.study) if result.Modality == "SR"]
        first, second = sorted(reports, key=lambda report: int(report.InstanceNumber))
        assert first.SOPClassUID == second.SOPClassUID == taken
        for number, report in enumerate((first, second)):
            path = tmp_path / f"report-{number}.dcm"
            path.write_bytes(house.archive.instances[str(report.SOPInstanceUID)].data)
            assert complaints(path) == set()
            assert report.file_meta.MediaStorageSOPClassUID == taken
            assert sum(1 for item in report.iterall() if item.value == "SCOORD") > 0, "whole"
        [study] = second.PredecessorDocumentsSequence
        [named] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
        assert named.ReferencedSOPClassUID == taken
        offered = house.archive.offered
        assert len(offered) == len(set(offered)) == 4, "what is there isn't sent with the next one"


async def test_an_archive_that_knows_no_report_at_all_keeps_the_pictures_and_it_is_said(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house, findings_only(house):
        house.archive.manners.refuse = dict.fromkeys(
            (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage), 0x0122
        )
        patient = house.admit()
        await house.start()
        job = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        told = said_of_archive(job)
        assert told[-1].startswith("1 objects made"), told
        assert "doesn't take its SOP class (0122)" in told[-1]
        assert [result.Modality for result in results_of(house, patient.study)] == ["OT"]


async def test_an_image_that_we_cannot_decode_is_asked_for_uncompressed(
    tmp_path: Path, database_url: str
) -> None:
    """JPEG Extended of twelve bits; Orthanc decodes it for whoever asks."""
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(KNEE.files[0])
    subprocess.run(["dcmcjpeg", "+ee", plain, packed], check=True)
    with orthanc(tmp_path / "orthanc", password=ARCHIVE_PASSWORD) as vna:
        vna.upload([packed])
        async with hospital(tmp_path, database_url) as house, findings_only(house):
            house.configuration["archives"]["vna"]["url"] = vna.dicomweb
            images = vna.sop_instance_uids()
            await house.start()
            job = await house.ask(study_instance_uid=KNEE.identity.study_instance_uid)
            await house.settled(job["id"], "done")
        objects = stored_objects(vna, images, tmp_path)
        assert sorted(str(result.Modality) for _, result in objects) == ["OT", "SR"]
        assert all(complaints(path) == set() for path, _ in objects)


async def test_a_destination_may_want_pictures_alone(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house, findings_only(house):
        house.configuration["destinations"]["vna"]["make"] = ["capture"]
        patient = house.admit()
        await house.start()
        await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        assert [result.Modality for result in results_of(house, patient.study)] == ["OT"]


def results_of(house: Hospital, study: str) -> list[Dataset]:
    return [dcmread(BytesIO(house.archive.instances[uid].data)) for uid in house.stored_of(study)]


async def test_a_uid_that_the_archive_holds_for_something_else_is_left_to_it(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        patient = house.admit()
        await house.start()
        first = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        [older] = [result for result in results_of(house, patient.study) if "PixelData" in result]
        older.PixelData = bytes(len(older.PixelData))
        house.archive.add(encode(older))
        for _ in range(2):
            asked = await house.ask(study_instance_uid=patient.study)
            second = await house.settled(asked["id"], "done")
            assert second["proof"]["stored"] == first["proof"]["stored"] == 2
        captures = [result for result in results_of(house, patient.study) if "PixelData" in result]
        assert len({str(picture.SOPInstanceUID) for picture in captures}) == len(captures) == 3, (
            "one for each job"
        )
        kept = house.archive.instances[str(older.SOPInstanceUID)]
        assert not np.any(dcmread(BytesIO(kept.data)).pixel_array), "what was there is there"


async def test_results_of_a_vendor_without_manners_are_put_right(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers in the source's series, under the source's UID, and forgets whose it is."""

    make = milvue_results.make_capture

    def carelessly(header: Dataset, data: bytes, *asked: Any) -> bytes:
        result = dcmread(BytesIO(make(header, data, *asked)))
        result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        result.SeriesInstanceUID = header.SeriesInstanceUID
        for keyword in ("PatientID", "PatientName", "SeriesDescription", "Manufacturer"):
            delattr(result, keyword)
        return encode(result)

    monkeypatch.setattr(milvue_results, "make_capture", carelessly)
    async with hospital(tmp_path, database_url) as house:
        patient = house.admit()
        await house.start()
        job = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        assert job["proof"]["stored"] == 2
        [capture] = [result for result in results_of(house, patient.study) if "PixelData" in result]
        source: Any = house.archive.instances[patient.instances[0]].header
        assert capture.SOPInstanceUID not in patient.instances
        assert capture.SeriesInstanceUID != source.SeriesInstanceUID
        assert capture.PatientID == source.PatientID
        assert capture.PatientName == source.PatientName
        assert capture.Manufacturer == "Milvue"
        assert capture.SeriesDescription == "Milvue trauma: result"
        again = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        assert again["proof"]["promised"] == 2, "what was renamed isn't taken for an image"


def drawn_on(house: Hospital, slide: str) -> int:
    """How many things, beside the frame around it."""
    [result] = house.results_on(slide)
    return len(result["data"]["result"]["content"]) - 1


async def test_a_finding_is_drawn_on_the_slide_that_it_was_seen_on_and_on_no_other(
    tmp_path: Path, database_url: str
) -> None:
    """A case of two slides. Sectra says which is which, or the slide's own files do, or nobody."""
    async with hospital(tmp_path, database_url) as house:
        case = [
            make_instance("1.2.3", SLIDE.series_instance_uid, "1.2.3.1"),
            make_instance("1.2.3", "2.26", "1.2.3.2"),
        ]
        for image in case:
            house.archive.add(encode(image))
        study = "1.2.3"
        house.show("first", study_instance_uid=study, series_instance_uid=str(case[0].SeriesInstanceUID))
        house.show("second", study_instance_uid=study, series_instance_uid=str(case[1].SeriesInstanceUID))
        house.show("by-its-files", study_instance_uid=study)
        house.show("unknown", study_instance_uid=study, files=[FileSpec(name="slide.svs", size=3000)])
        await house.start()
        for slide in ("first", "second", "by-its-files", "unknown"):
            await house.fire(slide)
            job = await house.job_on(slide, "done")
            here = slide in ("first", "by-its-files")
            assert drawn_on(house, slide) == int(here), slide
            [result] = house.results_on(slide)
            assert ("Not drawn" in result["displayProperties"]) is not here
            said = next(e["what"] for e in job["events"] if e["detail"].get("destination") == "sectra")
            assert said.endswith("aren't drawn") is not here


async def test_what_was_seen_in_a_frame_stands_at_the_frames_place_on_the_slide(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that marks a tile of the slide, in a report and nowhere else."""
    describe, report = milvue_results.describe_urgences, milvue_results.make_report
    slide = samples.make_samples()[-1]

    def without_boxes(*known: Any) -> dict[str, Any]:
        return {**describe(*known), "instances": [], "findings": []}

    def with_areas(header: Dataset, *asked: Any) -> bytes:
        result = dcmread(BytesIO(report(header, *asked)))
        level = dcmread(BytesIO(slide.files[0]), stop_before_pixels=True)
        for frame in (6, 99):
            area, image, reference = Dataset(), Dataset(), Dataset()
            area.RelationshipType, area.ValueType, area.GraphicType = "CONTAINS", "SCOORD", "POLYLINE"
            area.GraphicData = [10.0, 20.0, 30.0, 40.0]
            image.RelationshipType, image.ValueType = "SELECTED FROM", "IMAGE"
            reference.ReferencedSOPClassUID = level.SOPClassUID
            reference.ReferencedSOPInstanceUID = level.SOPInstanceUID
            reference.ReferencedFrameNumber = frame
            image.ReferencedSOPSequence = [reference]
            area.ContentSequence = [image]
            result.ContentSequence.append(area)
        return encode(result)

    monkeypatch.setattr(milvue_results, "describe_urgences", without_boxes)
    monkeypatch.setattr(milvue_results, "make_report", with_areas)
    async with hospital(tmp_path, database_url) as house:
        for data in slide.files:
            house.archive.add(data)
        await house.start()
        await house.fire("slide-wsi")
        await house.job_on("slide-wsi", "done")
        [result] = house.results_on("slide-wsi")
        _, drawn = result["data"]["result"]["content"]
        [line] = drawn["polylines"]
        corner = 256 + 10, 256 + 20  # the sixth of rows of four
        assert line["points"][0] == {"x": corner[0] / 1024, "y": corner[1] / 1024}
        assert result["displayProperties"]["Not drawn"].startswith("1 finding(s)")


async def test_a_finding_in_an_image_that_was_never_sent_holds_the_job(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = milvue_results.describe_urgences

    def astray(*known: Any) -> dict[str, Any]:
        found = describe(*known)
        found["instances"][0]["SOPInstanceUID"] = "1.2.3"
        return found

    monkeypatch.setattr(milvue_results, "describe_urgences", astray)
    async with hospital(tmp_path, database_url) as house:
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "held")
        assert "an image that isn't of this study" in job["error"]["message"]
        assert not house.stored_of(patient.study) and not drawn_on(house, patient.slide)
