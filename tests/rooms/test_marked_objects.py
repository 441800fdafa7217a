"""What bulk annotations and segmentations mark, made by other software, lies where that put it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.ann import (
    AnnotationGroup,
    GraphicTypeValues,
    MicroscopyBulkSimpleAnnotations,
)
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from gateway.contract import Finding
from gateway.dicom.annotations import marks_in
from gateway.dicom.reading import read_before
from gateway.simulate.samples import make_samples

SAMPLES = make_samples()
ALGORITHM = highdicom.AlgorithmIdentificationSequence("Cells", codes.DCM.ArtificialIntelligence, "1")
MADE: dict[str, Any] = {
    "series_number": 1,
    "instance_number": 1,
    "manufacturer": "Maker",
    "manufacturer_model_name": "Model",
    "software_versions": "1",
    "device_serial_number": "1",
}


def image(sample: int) -> Dataset:
    return pydicom.dcmread(BytesIO(SAMPLES[sample].files[0]))


def found(folder: Path, made: Dataset, widths: dict[str, int | None]) -> tuple[Finding, ...]:
    path = folder / "object.dcm"
    made.save_as(path, enforce_file_format=True)
    return marks_in(read_before(path), path, widths).findings


def annotate(source: Dataset, kind: GraphicTypeValues, *drawn: list[list[float]]) -> Dataset:
    group = AnnotationGroup(
        number=1,
        uid=generate_uid(),
        label="mitosis",
        annotated_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        annotated_property_type=codes.SCT.Neoplasm,
        graphic_type=kind,
        graphic_data=[np.array(points, dtype=np.float32) for points in drawn],
        algorithm_type=highdicom.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=ALGORITHM,
    )
    return MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type=highdicom.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=[group],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        **MADE,
    )


@pytest.mark.parametrize(
    ("kind", "drawn", "shape", "points"),
    [
        (
            GraphicTypeValues.POLYGON,
            ([[1, 2], [3, 2], [3, 5]], [[10, 10], [20, 10], [20, 30], [10, 30]]),
            "polygon",
            (((1, 2), (3, 2), (3, 5)), ((10, 10), (20, 10), (20, 30), (10, 30))),
        ),
        (
            GraphicTypeValues.POLYLINE,
            ([[1, 2], [3, 4]], [[5, 6], [7, 8], [9, 9]]),
            "polyline",
            (((1, 2), (3, 4)), ((5, 6), (7, 8), (9, 9))),
        ),
        (GraphicTypeValues.POINT, ([[1, 2]], [[30, 40]]), "point", (((1, 2),), ((30, 40),))),
        (
            GraphicTypeValues.RECTANGLE,
            ([[1, 2], [5, 2], [5, 6], [1, 6]], [[11, 2], [15, 2], [15, 6], [11, 6]]),
            "polygon",
            (((1, 2), (5, 2), (5, 6), (1, 6)), ((11, 2), (15, 2), (15, 6), (11, 6))),
        ),
    ],
)
def test_bulk_annotations_lie_in_the_whole_image(
    tmp_path: Path, kind: GraphicTypeValues, drawn: Any, shape: str, points: Any
) -> None:
    source = image(3)
    seen = found(tmp_path, annotate(source, kind, *drawn), {})
    assert [(each.shape, each.points) for each in seen] == [(shape, each) for each in points]
    assert {(each.label, each.sop_instance_uid, each.frame) for each in seen} == {
        ("mitosis", str(source.SOPInstanceUID), None)
    }


def test_of_very_many_annotations_the_rest_is_counted(tmp_path: Path) -> None:
    many = [[[float(n), 1.0]] for n in range(2_500)]
    seen = found(tmp_path, annotate(image(3), GraphicTypeValues.POINT, *many), {})
    assert len(seen) == 2_001
    assert (seen[-1].label, seen[-1].shape) == ("mitosis: 500 more", "none")


def segment(source: Dataset, mask: np.ndarray[Any, Any], **more: Any) -> Dataset:
    described = SegmentDescription(
        segment_number=1,
        segment_label="tumour",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=ALGORITHM,
    )
    return Segmentation(
        source_images=[source],
        pixel_array=mask,
        segmentation_type=more.pop("segmentation_type", "BINARY"),
        segment_descriptions=[described],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        **{**MADE, **more},
    )


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_is_outlined_in_the_image_that_it_was_made_of(tmp_path: Path, kind: str) -> None:
    source = image(1)
    source.FrameOfReferenceUID = generate_uid()
    mask = np.zeros((1, source.Rows, source.Columns), np.uint8)
    mask[0, 20:30, 40:60] = 1
    mask[0, 100:104, 7:9] = 1
    uid = str(source.SOPInstanceUID)
    given = mask.astype(np.float32) if kind == "FRACTIONAL" else mask
    seen = found(tmp_path, segment(source, given, segmentation_type=kind), {uid: int(source.Columns)})
    assert [each.points for each in seen] == [
        ((40, 20), (60, 20), (60, 30), (40, 30)),
        ((7, 100), (9, 100), (9, 104), (7, 104)),
    ]
    assert {(each.label, each.shape, each.sop_instance_uid) for each in seen} == {("tumour", "polygon", uid)}
    for width in (None, int(source.Columns) * 2):
        assert found(tmp_path, segment(source, mask), {uid: width}) == (), "nobody knows where it lies"


def test_a_segmented_slide_is_outlined_in_its_whole_matrix(tmp_path: Path) -> None:
    source = image(3)
    height, width = int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns)
    mask = np.zeros((1, height, width), np.uint8)
    tile = int(source.Columns)
    mask[0, 5:15, tile + 10 : tile + 30] = 1
    uid = str(source.SOPInstanceUID)
    made = segment(
        source,
        mask,
        tile_pixel_array=True,
        dimension_organization_type=highdicom.DimensionOrganizationTypeValues.TILED_SPARSE,
        omit_empty_frames=True,
    )
    seen = found(tmp_path, made, {uid: width})
    assert [(each.points, each.frame) for each in seen] == [
        (((tile + 10, 5), (tile + 30, 5), (tile + 30, 15), (tile + 10, 15)), None)
    ]


def test_what_cannot_be_decoded_is_drawn_nowhere_and_breaks_nothing(tmp_path: Path) -> None:
    source = image(1)
    source.FrameOfReferenceUID = generate_uid()
    mask = np.zeros((1, source.Rows, source.Columns), np.uint8)
    mask[0, 20:30, 40:60] = 1
    made = segment(source, mask)
    made.PixelData = made.PixelData[:100]
    assert found(tmp_path, made, {str(source.SOPInstanceUID): int(source.Columns)}) == ()
    cut = annotate(image(3), GraphicTypeValues.POLYGON, [[1, 2], [3, 2], [3, 5]])
    cut.AnnotationGroupSequence[0].LongPrimitivePointIndexList = b"\xff" * 8
    assert found(tmp_path, cut, {}) == ()
