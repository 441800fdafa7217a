"""What a vendor marks in millimetres stands where it lies: on the slide, and in the console's pictures."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.spatial import ImageToReferenceTransformer
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.simulate import milvue_results, samples
from tests.peers.dicom_samples import encode
from tests.peers.gateway import TOKENS, hospital
from tests.rooms.test_marks_in_space import SPACE, scan

RING = [(100.0, 200.0), (300.0, 200.0), (300.0, 440.0), (100.0, 200.0)]


def lifted(source: Dataset, pixels: Any, *, whole: bool) -> list[float]:
    turn = ImageToReferenceTransformer.for_image(source, for_total_pixel_matrix=whole)
    return [float(number) for point in turn(np.array(pixels)) for number in point]


@pytest.fixture
def marking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A vendor that marks these outlines in space, in a report and nowhere else: in the frame of reference
    that is given, or in that of the images that it got."""
    describe, report = milvue_results.describe_urgences, milvue_results.make_report

    def marking(*outlines: tuple[str, list[float]]) -> None:
        def without_boxes(*known: Any) -> dict[str, Any]:
            return {**describe(*known), "instances": [], "findings": []}

        def with_areas(header: Dataset, *asked: Any) -> bytes:
            result = dcmread(BytesIO(report(header, *asked)))
            for space, numbers in outlines:
                area = Dataset()
                area.RelationshipType, area.ValueType, area.GraphicType = "CONTAINS", "SCOORD3D", "POLYGON"
                area.GraphicData, area.ReferencedFrameOfReferenceUID = (
                    numbers,
                    space or header.FrameOfReferenceUID,
                )
                result.ContentSequence.append(area)
            return encode(result)

        monkeypatch.setattr(milvue_results, "describe_urgences", without_boxes)
        monkeypatch.setattr(milvue_results, "make_report", with_areas)

    return marking


async def test_what_is_marked_in_a_slides_space_stands_on_the_slide(
    tmp_path: Path, database_url: str, marking: Any
) -> None:
    slide = samples.make_samples()[-1]
    level = dcmread(BytesIO(slide.files[0]), stop_before_pixels=True)
    ring = lifted(level, RING, whole=True)
    marking((str(level.FrameOfReferenceUID), ring), ("1.2.3.4", ring))
    async with hospital(tmp_path, database_url) as house:
        for data in slide.files:
            house.archive.add(data)
        await house.start()
        await house.fire("slide-wsi")
        job = await house.job_on("slide-wsi", "done")
        [result] = house.results_on("slide-wsi")
        _, drawn = result["data"]["result"]["content"]
        [outline] = drawn["polygons"]
        width = int(level.TotalPixelMatrixColumns)
        got = [(point["x"] * width, point["y"] * width) for point in outline["points"]]
        assert np.array(got) == pytest.approx(np.array(RING[:-1]), abs=0.2)
        said = "1 mark(s) in a frame of reference that no image of the study has aren't drawn"
        assert result["displayProperties"]["Not drawn"] == said
        assert [e["detail"]["not_drawn"] for e in job["events"] if "not_drawn" in e["detail"]] == [[said]]


@pytest.mark.parametrize("nameless", [False, True])
async def test_what_is_marked_in_a_scan_is_shown_in_the_slice_that_it_lies_in(
    tmp_path: Path, database_url: str, marking: Any, nameless: bool
) -> None:
    """Also where the vendor knows the frame of reference by an alias alone."""
    slices = scan()
    slices[3].Rows = slices[3].Columns = 96  # so that it is known again
    slices[3].PixelData = bytes(2 * 96 * 96)
    marking(
        ("" if nameless else SPACE, lifted(slices[3], [(10, 20), (30, 20), (30, 44), (10, 20)], whole=False))
    )
    async with hospital(tmp_path, database_url) as house:
        for each in slices:
            house.archive.add(encode(each))
        if nameless:
            house.configuration["profiles"] = {"research": {}}
            house.application["deidentify"] = "research"
        await house.start()
        asked = await house.ask(study_instance_uid=str(slices[0].StudyInstanceUID))
        job = await house.settled(asked["id"], "done")
        address = f"{house.gateway.url}/jobs/{job['id']}/pictures/1"
        async with house.http.get(
            address, headers={"Authorization": f"Bearer {TOKENS['operator']}"}
        ) as answer:
            page = await answer.text()
        assert answer.status == 200
        lines = [
            [tuple(map(float, point.split(","))) for point in line.split()]
            for line in re.findall(r'points="([^"]+)"', page)
        ]
        assert np.array(lines[0]) == pytest.approx(
            np.array([(10, 20), (30, 20), (30, 44), (10, 20)]), abs=0.2
        )
        assert 'viewBox="0 0 96 96"' in page, "in that slice"
