"""What other software marks in millimetres is found in the images that it lies in, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from highdicom import sr
from highdicom.ann import AnnotationGroup, GraphicTypeValues, MicroscopyBulkSimpleAnnotations
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from highdicom.spatial import ImageToReferenceTransformer
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, JPEG2000Lossless, generate_uid

from gateway.dicom.annotations import marks_in
from gateway.dicom.geometry import Plane, planes_of
from gateway.dicom.marks import Mark, Seen, place
from gateway.dicom.reading import read_before
from tests.peers.dicom_samples import make_study
from tests.rooms.test_marked_objects import ALGORITHM, MADE, image

SPACE = "1.2.826.0.1.3680043.8.498.77"
TILTED = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]  # of no anatomical plane
NORMAL = np.cross(TILTED[:3], TILTED[3:])
GAP = 4.0
OUTLINE = [(10.0, 20.0), (30.0, 20.0), (30.0, 44.5)]


def scan(count: int = 5) -> list[Dataset]:
    slices = list(make_study(count))
    for number, each in enumerate(slices):
        each.SOPClassUID = each.file_meta.MediaStorageSOPClassUID = CTImageStorage
        each.Modality = "CT"
        each.FrameOfReferenceUID = SPACE
        each.PositionReferenceIndicator = ""
        corner = np.array([-100.0, 50.0, 7.5]) + number * GAP * NORMAL
        each.ImagePositionPatient = [round(float(part), 8) for part in corner]
        each.ImageOrientationPatient = TILTED
        each.PixelSpacing = [0.75, 0.5]
        each.SliceThickness = "2"
    return slices


def lifted(source: Dataset, pixels: Any, whole: bool = False) -> Any:
    return ImageToReferenceTransformer.for_image(source, for_total_pixel_matrix=whole)(np.array(pixels))


def report(kind: Any, points: Any, space: str, evidence: list[Dataset], **more: Any) -> Dataset:
    region = sr.ImageRegion3D(graphic_type=kind, graphic_data=points, frame_of_reference_uid=space)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="nodule 1"),
        referenced_region=region,
        finding_type=codes.SCT.Nodule,
        **more,
    )
    observer = sr.ObserverContext(
        codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(uid=generate_uid(), name="Finder")
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer), codes.SCT.ImagingProcedure, [group]
    )
    return sr.Comprehensive3DSR(
        evidence,
        content[0],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
    )


def seen_in(folder: Path, made: Dataset, widths: dict[str, int | None] | None = None) -> Seen:
    path = folder / "object.dcm"
    made.save_as(path, enforce_file_format=True)
    return marks_in(read_before(path), path, widths or {})


def found(seen: Seen, images: list[Dataset]) -> Seen:
    return place(seen.marks, [plane for each in images for plane in planes_of(each)])


def near(points: Any) -> Any:
    return pytest.approx(np.array(points), abs=0.01)


@pytest.mark.parametrize("at", [0, 3])
def test_an_area_of_a_report_lies_in_its_slice(tmp_path: Path, at: int) -> None:
    slices = scan()
    ring = lifted(slices[at], [*OUTLINE, OUTLINE[0]])
    made = report(sr.GraphicTypeValues3D.POLYGON, ring, SPACE, slices)
    [finding] = found(seen_in(tmp_path, made), slices).findings
    assert (finding.label, finding.shape, finding.frame) == ("Nodule", "polygon", None)
    assert finding.sop_instance_uid == slices[at].SOPInstanceUID
    assert np.array(finding.points) == near(OUTLINE)


def test_a_point_belongs_to_the_slice_in_whose_thickness_it_lies(tmp_path: Path) -> None:
    slices = scan()
    for off, there in ((0.9, True), (1.1, False), (-0.9, True), (GAP - 0.9, True)):
        point = lifted(slices[1], [(40, 12)]) + off * NORMAL
        seen = found(seen_in(tmp_path, report(sr.GraphicTypeValues3D.POINT, point, SPACE, slices)), slices)
        [finding] = seen.findings
        if there:
            expected = slices[2 if off > GAP / 2 else 1].SOPInstanceUID
            assert (finding.sop_instance_uid, finding.shape) == (expected, "point")
            assert np.array(finding.points) == near([(40, 12)])
        else:
            assert (finding.sop_instance_uid, finding.shape, finding.points) == (None, "none", ())
            assert seen.remarks == ("1 mark(s) that lie in no image of the study aren't drawn",)


def test_another_frame_of_reference_is_said_and_not_drawn(tmp_path: Path) -> None:
    slices = scan()
    point = lifted(slices[1], [(40, 12)])
    made = report(sr.GraphicTypeValues3D.POINT, point, "1.2.3.4", slices)
    seen = found(seen_in(tmp_path, made), slices)
    assert [(each.label, each.points) for each in seen.findings] == [("Nodule", ())]
    assert seen.remarks == ("1 mark(s) in a frame of reference that no image of the study has aren't drawn",)


def test_what_crosses_slices_or_lies_beside_them_is_drawn_in_none(tmp_path: Path) -> None:
    slices = scan()
    across = [*lifted(slices[0], OUTLINE[:2]), *lifted(slices[2], OUTLINE[2:])]
    line = report(sr.GraphicTypeValues3D.POLYLINE, np.array(across), SPACE, slices)
    beside = report(sr.GraphicTypeValues3D.POINT, lifted(slices[0], [(-5, 3)]), SPACE, slices)
    for made in (line, beside):
        assert [each.shape for each in found(seen_in(tmp_path, made), slices).findings] == ["none"]


def test_of_two_series_in_one_space_the_one_that_is_named_is_drawn_on(tmp_path: Path) -> None:
    first, second = scan(2), scan(2)
    point = lifted(first[1], [(7, 9)])
    for named in (first[1], second[1]):
        source = sr.SourceImageForMeasurementGroup(named.SOPClassUID, named.SOPInstanceUID)
        made = report(sr.GraphicTypeValues3D.POINT, point, SPACE, [*first, *second])
        group = made.ContentSequence[-1].ContentSequence[0]
        group.ContentSequence = [*group.ContentSequence, source]
        [finding] = found(seen_in(tmp_path, made), [*first, *second]).findings
        assert finding.sop_instance_uid == named.SOPInstanceUID


def test_an_ellipse_in_space_is_round_and_an_ellipsoid_is_said(tmp_path: Path) -> None:
    slices = scan()
    ends = [(10, 32), (50, 32), (30, 22), (30, 42)]
    made = report(sr.GraphicTypeValues3D.ELLIPSE, lifted(slices[2], ends), SPACE, slices)
    [finding] = found(seen_in(tmp_path, made), slices).findings
    assert finding.shape == "polygon" and len(finding.points) == 24
    for x, y in finding.points:
        assert ((x - 30) / 20) ** 2 + ((y - 32) / 10) ** 2 == pytest.approx(1, abs=1e-3)
    area = made.ContentSequence[-1].ContentSequence[0].ContentSequence[-1]
    assert area.ValueType == "SCOORD3D"
    area.GraphicType = "ELLIPSOID"
    seen = seen_in(tmp_path, made)
    assert seen == Seen(remarks=("1 mark(s) that are ellipsoids aren't drawn",))


def test_what_is_marked_on_a_slide_is_drawn_in_its_finest_image(tmp_path: Path) -> None:
    source = image(3)
    ring = lifted(source, [*OUTLINE, OUTLINE[0]], whole=True)
    made = report(sr.GraphicTypeValues3D.POLYGON, ring, str(source.FrameOfReferenceUID), [source])
    coarse = planes_of_coarser(source)
    seen = place(seen_in(tmp_path, made).marks, [*coarse, *planes_of(source)])
    [finding] = seen.findings
    assert finding.sop_instance_uid == source.SOPInstanceUID and finding.frame is None
    assert np.array(finding.points) == near(OUTLINE)


def planes_of_coarser(source: Dataset) -> list[Plane]:
    coarse = image(3)
    coarse.SOPInstanceUID = "1.2.3"
    coarse.TotalPixelMatrixColumns //= 2
    coarse.TotalPixelMatrixRows //= 2
    [measures] = coarse.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.PixelSpacing = [2 * each for each in measures.PixelSpacing]
    return list(planes_of(coarse))


@pytest.mark.parametrize("flat", [True, False])
def test_bulk_annotations_in_millimetres_lie_where_their_pixels_would(tmp_path: Path, flat: bool) -> None:
    source = image(3)
    drawn = [lifted(source, OUTLINE, whole=True), lifted(source, [(5, 5), (9, 5), (9, 9)], whole=True)]
    if not flat:  # each point says its own depth
        drawn[1][:, 2] = [0.0, 0.001, 0.002]
    group = AnnotationGroup(
        number=1,
        uid=generate_uid(),
        label="gland",
        annotated_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        annotated_property_type=codes.SCT.Neoplasm,
        graphic_type=GraphicTypeValues.POLYGON,
        graphic_data=[np.array(each, dtype=np.float64) for each in drawn],
        algorithm_type=highdicom.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=ALGORITHM,
    )
    made = MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type=highdicom.ann.AnnotationCoordinateTypeValues.SCOORD3D,
        annotation_groups=[group],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        **MADE,
    )
    assert ("CommonZCoordinateValue" in made.AnnotationGroupSequence[0]) == flat
    first, second = found(seen_in(tmp_path, made), [source]).findings
    assert (first.label, first.shape) == ("gland", "polygon")
    assert {first.sop_instance_uid, second.sop_instance_uid} == {str(source.SOPInstanceUID)}
    assert np.array(first.points) == near(OUTLINE)
    assert np.array(second.points) == near([(5, 5), (9, 5), (9, 9)])


def segment(sources: list[Dataset], mask: Any, labels: list[str], **more: Any) -> Dataset:
    described = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=ALGORITHM,
        )
        for number, label in enumerate(labels, 1)
    ]
    return Segmentation(
        source_images=sources,
        pixel_array=mask,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        **{"segmentation_type": "BINARY", **MADE, **more},
    )


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("organisation", ["TILED_FULL", "TILED_SPARSE"])
def test_each_segment_of_a_tiled_slide_lies_in_its_tile(tmp_path: Path, kind: str, organisation: str) -> None:
    source = image(3)
    height, width, tile = (
        int(source.TotalPixelMatrixRows),
        int(source.TotalPixelMatrixColumns),
        int(source.Columns),
    )
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, 5:15, tile + 10 : tile + 30] = 1
    mask[0, tile + 2 : tile + 6, 3:9] = 2
    made = segment(
        [source],
        mask,
        ["tumour", "stroma"],
        segmentation_type=kind,
        tile_pixel_array=True,
        dimension_organization_type=organisation,
        omit_empty_frames=organisation == "TILED_SPARSE",
    )
    assert ("PerFrameFunctionalGroupsSequence" in made) == (organisation == "TILED_SPARSE")
    expected = {
        ("tumour", ((tile + 10, 5), (tile + 30, 5), (tile + 30, 15), (tile + 10, 15))),
        ("stroma", ((3, tile + 2), (9, tile + 2), (9, tile + 6), (3, tile + 6))),
    }
    seen = seen_in(tmp_path, made, {str(source.SOPInstanceUID): width})
    assert {(each.label, each.points) for each in seen.findings} == expected
    assert {each.sop_instance_uid for each in seen.findings} == {str(source.SOPInstanceUID)}
    # Of another image of the slide it is known where in space it lies.
    other = seen_in(tmp_path, made, {"1.2.3": width // 2})
    assert other.findings == ()
    again = place(other.marks, list(planes_of(source)))
    assert {(each.label, tuple((round(x), round(y)) for x, y in each.points)) for each in again.findings} == (
        expected
    )


def test_a_segmentation_that_names_no_source_lies_in_the_slices_of_its_place(tmp_path: Path) -> None:
    slices = scan()
    size = int(slices[0].Rows)
    mask = np.zeros((len(slices), size, size), np.uint8)
    mask[2, 20:30, 40:60] = 1
    mask[4, 1:3, 1:5] = 1
    made = segment(slices, mask, ["tumour"])
    for groups in made.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence
    seen = seen_in(tmp_path, made, {str(each.SOPInstanceUID): size for each in slices})
    assert seen.findings == () and len(seen.marks) == 2
    by_image = {each.sop_instance_uid: each.points for each in found(seen, slices).findings}
    assert by_image.keys() == {slices[2].SOPInstanceUID, slices[4].SOPInstanceUID}
    assert np.array(by_image[slices[2].SOPInstanceUID]) == near([(40, 20), (60, 20), (60, 30), (40, 30)])


def test_a_segmentation_of_nobody_knows_where_is_said(tmp_path: Path) -> None:
    slices = scan(2)
    size = int(slices[0].Rows)
    mask = np.ones((2, size, size), np.uint8)
    made = segment(slices, mask, ["tumour"])
    for groups in made.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence, groups.PlanePositionSequence
    seen = seen_in(tmp_path, made, {str(each.SOPInstanceUID): size for each in slices})
    assert seen == Seen(
        remarks=("2 mark(s) of a segmentation whose place in the images isn't known aren't drawn",)
    )


def test_what_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    slices = scan(1)
    size = int(slices[0].Rows)
    made = segment(slices, np.ones((1, size, size), np.uint8), ["tumour"])
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    made.PixelData = encapsulate([b"no picture"])
    made["PixelData"].is_undefined_length = True
    seen = seen_in(tmp_path, made, {str(slices[0].SOPInstanceUID): size})
    assert seen == Seen(remarks=("a segmentation can't be decoded, and isn't drawn",))


def test_nothing_is_placed_by_chance() -> None:
    mark = Mark("x", "point", ((1.0, 2.0, 3.0),), "")
    assert place([mark], []).findings[0].points == ()
