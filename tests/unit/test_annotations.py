from __future__ import annotations

import io
import math
import struct

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.dicom.annotations import marks_in, read_findings
from gateway.dicom.bulk import UNTOLD
from gateway.dicom.part10 import ImageReader
from gateway.dicom.reading import read_before
from gateway.simulate.patients import HAND
from gateway.simulate.samples import make_samples

IMAGE = "1.2.826.0.1.3680043.8.498.1"
COMPREHENSIVE_SR, GSPS = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.11.1"


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def code(value, meaning):
    return [item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)]


@pytest.fixture
def write(tmp_path):
    def write(dataset, sop_class):
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = tmp_path / "object.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def report(kind, data):
    area = item(ValueType="SCOORD", GraphicType=kind, GraphicData=data, RelationshipType="CONTAINS")
    area.ContentSequence = [
        item(
            ValueType="IMAGE",
            ReferencedSOPSequence=[item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID=IMAGE)],
        )
    ]
    named = item(
        ValueType="CODE",
        ConceptNameCodeSequence=code("121071", "Finding"),
        ConceptCodeSequence=code("125605004", "Fracture of bone"),
    )
    number = item(
        ValueType="NUM",
        ConceptNameCodeSequence=code("410668003", "Length"),
        MeasuredValueSequence=[
            item(NumericValue="12.5", MeasurementUnitsCodeSequence=code("mm", "millimeter"))
        ],
    )
    group = item(ValueType="CONTAINER", ConceptNameCodeSequence=code("125007", "Measurement Group"))
    group.ContentSequence = [named, number, area]
    return item(ValueType="CONTAINER", ContentSequence=[group])


@pytest.mark.parametrize(
    ("kind", "data", "shape", "points"),
    [
        ("POLYLINE", [1, 2, 3, 4, 5, 6, 1, 2], "polygon", ((1, 2), (3, 4), (5, 6))),
        ("POLYLINE", [1, 2, 3, 4], "polyline", ((1, 2), (3, 4))),
    ],
)
def test_areas_of_a_report_carry_finding_and_measure(write, kind, data, shape, points):
    (finding,) = read_findings(write(report(kind, data), COMPREHENSIVE_SR))
    assert (finding.label, finding.measure, finding.sop_instance_uid) == (
        "Fracture of bone",
        "12.5 mm",
        IMAGE,
    )
    assert (finding.shape, finding.points) == (shape, points)


def test_each_point_of_a_report_is_a_finding(write):
    found = read_findings(write(report("MULTIPOINT", [1, 2, 3, 4]), COMPREHENSIVE_SR))
    assert [finding.points for finding in found] == [((1, 2),), ((3, 4),)]


@pytest.mark.parametrize("origin", [None, "FRAME", "VOLUME"])
@pytest.mark.parametrize("frames", [None, 7, [7, 8]])
def test_coordinates_of_a_frame_say_so(write, origin, frames):
    dataset = report("POLYLINE", [1, 2, 3, 4])
    [*_, area] = dataset.ContentSequence[0].ContentSequence
    if origin:
        area.PixelOriginInterpretation = origin
    if frames:
        area.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = frames
    found = [finding.frame for finding in read_findings(write(dataset, COMPREHENSIVE_SR))]
    if origin == "VOLUME" or (origin is None and frames is None):
        assert found == [None]
    else:
        assert found == {None: [UNTOLD], 7: [7]}.get(frames if not isinstance(frames, list) else 0, [7, 8])


def written(value, meaning, text):
    return item(ValueType="TEXT", ConceptNameCodeSequence=code(value, meaning), TextValue=text)


def test_a_finding_is_the_label_before_what_tracks_it(write):
    dataset = report("POLYLINE", [1, 2, 3, 4])
    [group] = dataset.ContentSequence
    tracked = written("112039", "Tracking Identifier", "lesion 4711")
    group.ContentSequence = [tracked, written("121073", "Impression", "broken"), *group.ContentSequence]
    [finding] = read_findings(write(dataset, COMPREHENSIVE_SR))
    assert finding.label == "Fracture of bone"
    group.ContentSequence = [tracked, *list(group.ContentSequence)[3:]]
    [finding] = read_findings(write(dataset, COMPREHENSIVE_SR))
    assert finding.label == "lesion 4711", "better than nothing"


@pytest.mark.parametrize(("units", "frame"), [("PIXEL", 3), ("MATRIX", None)])
def test_a_presentation_state_counts_in_frames_or_in_the_whole_slide(write, units, frame):
    graphic = item(GraphicAnnotationUnits=units, GraphicType="POINT", GraphicData=[10.5, 20.5])
    image = item(ReferencedSOPInstanceUID=IMAGE, ReferencedFrameNumber=3)
    annotation = item(ReferencedImageSequence=[image], GraphicObjectSequence=[graphic])
    [finding] = read_findings(write(item(GraphicAnnotationSequence=[annotation]), GSPS))
    assert (finding.frame, finding.points) == (frame, ((10.5, 20.5),))


def test_a_presentation_state_is_labelled_by_its_text(write):
    graphic = item(
        GraphicAnnotationUnits="PIXEL", GraphicType="POLYLINE", GraphicData=[10.5, 20.5, 30.5, 40.5]
    )
    state = item(
        GraphicAnnotationSequence=[
            item(
                ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)],
                TextObjectSequence=[item(UnformattedTextValue="Fracture 91 %")],
                GraphicObjectSequence=[graphic],
            )
        ]
    )
    (finding,) = read_findings(write(state, GSPS))
    assert (finding.label, finding.points) == ("Fracture 91 %", ((10.5, 20.5), (30.5, 40.5)))


@pytest.mark.parametrize("units", ["PIXEL", "DISPLAY", "MATRIX"])
def test_what_is_round_is_drawn_round(write, units):
    """An axis may lie anyhow."""
    tilted = [13, 14, 7, 6, 14, 7, 6, 13]
    area = item(
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[100, 200],
    )
    scale = (100, 200) if units == "DISPLAY" else (1, 1)
    graphics = [
        item(
            GraphicAnnotationUnits=units,
            GraphicType=kind,
            GraphicData=[number / scale[n % 2] for n, number in enumerate(data)],
        )
        for kind, data in (("CIRCLE", [10, 10, 13, 14]), ("ELLIPSE", tilted))
        if units != "DISPLAY" or kind == "ELLIPSE"  # a circle of a display is round there
    ]
    annotation = item(
        ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)], GraphicObjectSequence=graphics
    )
    state = item(GraphicAnnotationSequence=[annotation], DisplayedAreaSelectionSequence=[area])
    for finding in read_findings(write(state, GSPS)):
        assert finding.shape == "polygon" and finding.sop_instance_uid == IMAGE
        away = [math.dist(point, (10, 10)) for point in finding.points]
        assert all(math.isclose(each, 5, rel_tol=1e-4) for each in away)
        assert len(set(finding.points)) == 24


def displayed(rotation, first, last, at, **more):
    """By what share of the display a pixel's place is told there, and where it is drawn."""
    graphic = item(GraphicAnnotationUnits="DISPLAY", GraphicType="POINT", GraphicData=list(at))
    area = item(DisplayedAreaTopLeftHandCorner=first, DisplayedAreaBottomRightHandCorner=last, **more)
    return item(
        ImageRotation=rotation,
        DisplayedAreaSelectionSequence=[area],
        GraphicAnnotationSequence=[
            item(
                ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)],
                GraphicObjectSequence=[graphic],
            )
        ],
    )


@pytest.mark.parametrize(
    ("rotation", "first", "last", "at", "pixel"),
    [  # of an image of 100 columns and 200 rows; worked out by hand, on paper that was turned
        (0, [1, 1], [100, 200], (0.25, 0.1), (25, 20)),
        (0, [11, 21], [60, 120], (0.5, 0.5), (35, 70)),
        (0, [-9, 1], [110, 200], (0.5, 0), (50, 0)),
        (90, [1, 200], [100, 1], (0.25, 0.1), (10, 150)),
        (180, [100, 200], [1, 1], (0.25, 0.1), (75, 180)),
        (270, [100, 1], [1, 200], (0.25, 0.1), (90, 50)),
        (0, [100, 1], [1, 200], (0.25, 0.1), (75, 20)),  # mirrored
    ],
)
def test_shares_of_a_display_lie_where_that_shows_the_image(write, rotation, first, last, at, pixel):
    [finding] = read_findings(write(displayed(rotation, first, last, at), GSPS))
    assert finding.points[0] == pytest.approx(pixel, abs=1e-4)


def test_shares_of_a_display_that_shows_another_image_are_not_drawn(write):
    elsewhere = [item(ReferencedSOPInstanceUID="1.2.3.4")]
    state = displayed(0, [1, 1], [10, 10], (0.5, 0.5), ReferencedImageSequence=elsewhere)
    path = write(state, GSPS)
    seen = marks_in(read_before(path), path)
    assert seen.findings == ()
    assert seen.remarks == ("1 mark(s) in parts of a display whose area isn't told aren't drawn",)


def test_a_text_that_stands_alone_is_pinned_where_it_points(write):
    texts = [
        item(
            UnformattedTextValue="nodule",
            AnchorPoint=[3, 4],
            AnchorPointAnnotationUnits="PIXEL",
            BoundingBoxTopLeftHandCorner=[50, 50],
            BoundingBoxAnnotationUnits="PIXEL",
        ),
        item(
            UnformattedTextValue="turned",
            BoundingBoxTopLeftHandCorner=[7, 8],
            BoundingBoxAnnotationUnits="PIXEL",
        ),
    ]
    annotation = item(
        ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)], TextObjectSequence=texts
    )
    found = read_findings(write(item(GraphicAnnotationSequence=[annotation]), GSPS))
    assert [(each.label, each.shape, each.points) for each in found] == [
        ("nodule", "point", ((3, 4),)),
        ("turned", "point", ((7, 8),)),
    ]


def test_as_many_texts_as_figures_belong_to_them_one_by_one(write):
    graphics = [item(GraphicAnnotationUnits="PIXEL", GraphicType="POINT", GraphicData=[n, n]) for n in (1, 2)]
    annotation = item(
        ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)],
        GraphicObjectSequence=graphics,
        TextObjectSequence=[item(UnformattedTextValue=text) for text in ("one", "two")],
    )
    found = read_findings(write(item(GraphicAnnotationSequence=[annotation]), GSPS))
    assert [(each.label, each.points) for each in found] == [("one", ((1, 1),)), ("two", ((2, 2),))]


@pytest.mark.parametrize("data", [[], [1], [1, 2, 3], [float("nan"), 1.0, 2.0, 3.0]])
def test_coordinates_that_make_no_figure_are_said(write, data):
    path = write(report("POLYLINE", data), COMPREHENSIVE_SR)
    seen = marks_in(read_before(path), path)
    assert seen.findings == ()
    assert seen.remarks == ("1 mark(s) whose coordinates make no figure aren't drawn",)


def test_pictures_point_at_nothing(tmp_path):
    picture = tmp_path / "picture.dcm"
    picture.write_bytes(make_samples()[0].files[0])
    assert read_findings(picture) == ()


def test_of_one_object_with_very_many_marks_the_rest_is_counted(write):
    dataset = report("MULTIPOINT", list(range(12_000)))
    path = write(dataset, COMPREHENSIVE_SR)
    seen = marks_in(read_before(path), path)
    assert len(seen.findings) == 5_000
    assert seen.remarks == ("1000 mark(s) of one object that has too many aren't drawn",)


def test_the_width_is_that_of_the_image_or_of_the_whole_slide():
    studies = {study.identity.key: study for study in make_samples()}
    picture = studies[HAND.key].files[0]
    assert _width(picture[:65536]) == pydicom.dcmread(_file(picture)).Columns
    for level in studies["slide"].files:
        assert _width(level[:65536]) == pydicom.dcmread(_file(level)).TotalPixelMatrixColumns


def test_a_width_that_has_not_come_yet_is_unknown():
    picture = make_samples()[0].files[0]
    assert _width(picture[:200]) is None
    assert _width(b"\0" * 128 + b"DICM" + struct.pack("<HH", 2, 0)) is None


def _file(data):
    return io.BytesIO(data)


def _width(data: bytes) -> int | None:
    reader = ImageReader()
    reader.feed(data)
    return reader.width()
