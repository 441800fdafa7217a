from __future__ import annotations

import io
import struct

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.dicom.annotations import UNTOLD, read_findings
from gateway.dicom.part10 import WidthReader
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
        ("CIRCLE", [10, 10, 13, 14], "box", ((5, 5), (15, 15))),
        ("ELLIPSE", [0, 5, 20, 5, 10, 2, 10, 8], "box", ((0, 2), (20, 8))),
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


def test_display_coordinates_and_pictures_give_nothing(write, tmp_path):
    graphic = item(GraphicAnnotationUnits="DISPLAY", GraphicType="POLYLINE", GraphicData=[0, 0, 1, 1])
    state = item(GraphicAnnotationSequence=[item(GraphicObjectSequence=[graphic])])
    assert read_findings(write(state, GSPS)) == ()
    picture = tmp_path / "picture.dcm"
    picture.write_bytes(make_samples()[0].files[0])
    assert read_findings(picture) == ()


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
    reader = WidthReader()
    reader.feed(data)
    return reader.width()
