"""Slides that are in no VNA: their own files in Sectra are the study, and reach the vendor bit by bit."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.simulate import patients, samples
from gateway.simulate.slides import FileSpec
from tests.peers.gateway import TRAUMA, hospital, unknown_study

PYRAMID = samples.make_samples()[-1].files
SLIDE = {
    "study_instance_uid": patients.SLIDE.study_instance_uid,
    "series_instance_uid": patients.SLIDE.series_instance_uid,
    "accession_number": patients.SLIDE.accession_number,
}


@pytest.mark.timeout(180)
async def test_a_slide_in_no_vna_is_analysed_from_its_own_files(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["archives"]["sectra"] = {"kind": "sectra"}
        house.application["archives"] = ["vna", "sectra"]
        house.application["accept"] = {"modalities": []}
        house.archive.instances.clear()
        house.show("slide-own", **SLIDE)
        other = {"study_instance_uid": unknown_study(), "files": [FileSpec(name="slide.svs", size=5000)]}
        house.show("slide-of-another-make", **other)
        await house.start()

        await house.fire("slide-own")
        job = await house.job_on("slide-own")
        assert job["state"] == "done", job["error"]
        assert job["study"]["archive"] == "sectra"
        assert [job["proof"][count] for count in ("promised", "sent", "acknowledged")] == [len(PYRAMID)] * 3
        sent = {str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID): data for data in PYRAMID}
        assert {uid: house.milvue.digests[uid] for uid in sent} == {
            uid: hashlib.sha256(data).hexdigest() for uid, data in sent.items()
        }
        assert house.sectra.front.count("GET", "slide-own/files") == 1, "downloaded once, whoever reads it"
        slides = house.folder / "data" / "slides"
        await house.until(lambda: not list(slides.iterdir()), "its files are gone with the job")

        await house.fire("slide-of-another-make")
        job = await house.job_on("slide-of-another-make")
        assert job["state"] == "failed"
        assert "no DICOM" in job["error"]["message"]
        await house.until(
            lambda: "no DICOM" in house.results_on("slide-of-another-make", TRAUMA)[0]["displayResult"],
            "the slide says why",
        )
