"""Pixels to millimetres and back, as other software counts them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from highdicom.spatial import ImageToReferenceTransformer, create_rotation_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicom.geometry import Plane, plane_noted, planes_of, space_noted
from gateway.dicom.part10 import ImageReader
from gateway.simulate.samples import make_samples
from tests.peers.dicom_samples import encode, make_study

SPACE = "1.2.3.4"
PLACE = st.tuples(*[st.integers(-30_000, 30_000).map(lambda tenths: tenths / 10)] * 3)
SPACING = st.tuples(*[st.integers(100, 5_000).map(lambda microns: microns / 1000)] * 2)
ANGLES = st.tuples(*[st.integers(0, 359)] * 3)
PIXEL = st.tuples(st.floats(0, 512), st.floats(0, 512))


def turned(angles: tuple[int, int, int]) -> list[float]:
    """Directions of a row and of a column."""
    a, b, c = map(math.radians, angles)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(c), -math.sin(c)], [0, math.sin(c), math.cos(c)]])
    whole = about_z @ about_y @ about_x
    return [round(float(each), 8) for each in (*whole[:, 0], *whole[:, 1])]


def slice_of(position: Any, orientation: Any, spacing: Any) -> Dataset:
    [header] = make_study(1)
    header.FrameOfReferenceUID = SPACE
    header.ImagePositionPatient = [str(each) for each in position]
    header.ImageOrientationPatient = [str(each)[:16] for each in orientation]
    header.PixelSpacing = [str(each) for each in spacing]
    header.SliceThickness = "3"
    return header


@given(PLACE, ANGLES, SPACING, PIXEL)
@settings(deadline=None, max_examples=100)
def test_a_pixel_lies_where_other_software_puts_it_and_back(
    position: Any, angles: Any, spacing: Any, pixel: Any
) -> None:
    header = slice_of(position, turned(angles), spacing)
    [plane] = planes_of(header)
    there = ImageToReferenceTransformer.for_image(header)(np.array([pixel]))[0]
    assert plane.point(pixel) == pytest.approx(tuple(there), abs=1e-3)
    assert plane.pixel(plane.point(pixel)) == pytest.approx(pixel, abs=1e-3)
    assert plane.distance(plane.point(pixel)) < 1e-3
    normal = np.array(create_rotation_matrix(header.ImageOrientationPatient))[:, 2]
    beside = tuple(float(each) for each in np.array(plane.point(pixel)) + 2.5 * normal)
    assert plane.distance((beside[0], beside[1], beside[2])) == pytest.approx(2.5, abs=1e-3)
    assert plane.pixel((beside[0], beside[1], beside[2])) == pytest.approx(pixel, abs=1e-2)


@given(PLACE, ANGLES, SPACING, st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
@settings(deadline=None, max_examples=50)
def test_what_is_noted_on_the_way_is_what_the_header_says(
    position: Any, angles: Any, spacing: Any, syntax: Any
) -> None:
    header = slice_of(position, turned(angles), spacing)
    header.file_meta.TransferSyntaxUID = syntax
    reader = ImageReader()
    reader.feed(encode(header))
    lies = reader.lies()
    assert lies is not None and space_noted(lies) == SPACE
    assert plane_noted(str(header.SOPInstanceUID), lies) == next(planes_of(header))
    assert reader.width() == header.Columns


@given(st.integers(0, 3), PIXEL)
@settings(deadline=None)
def test_a_slide_lies_as_a_whole_on_its_slide(quarters: int, pixel: Any) -> None:
    header = slide()
    directions = [[0, -1, 0, -1, 0, 0], [1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0], [-1, 0, 0, 0, 1, 0]]
    header.ImageOrientationSlide = directions[quarters]
    [plane] = planes_of(header)
    there = ImageToReferenceTransformer.for_image(header, for_total_pixel_matrix=True)(np.array([pixel]))[0]
    assert plane.point(pixel)[:2] == pytest.approx(tuple(there)[:2], abs=1e-6)
    assert plane.pixel((*plane.point(pixel)[:2], 12.5)) == pytest.approx(pixel, abs=1e-6)
    assert (plane.columns, plane.rows) == (header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows)


def slide() -> Dataset:
    import pydicom

    samples = {study.identity.key: study for study in make_samples()}
    return pydicom.dcmread(io.BytesIO(samples["slide"].files[0]), stop_before_pixels=True)


def test_of_several_frames_each_lies_where_it_says() -> None:
    header = slice_of((0, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1))
    header.NumberOfFrames = 3
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["0.5", "0.25"], "4"
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in range(3):
        groups, position = Dataset(), Dataset()
        position.ImagePositionPatient = [10, 20, 4 * number]
        groups.PlanePositionSequence = [position]
        frames.append(groups)
    del frames[1].PlanePositionSequence
    header.PerFrameFunctionalGroupsSequence = frames
    first, third = planes_of(header)
    assert [(each.frame, each.half, each.point((0.5, 0.5))) for each in (first, third)] == [
        (1, 2, (10, 20, 0)),
        (3, 2, (10, 20, 8)),
    ]
    assert first.point((1.5, 0.5)) == (10.25, 20, 0) and first.point((0.5, 1.5)) == (10, 20.5, 0)
    reader = ImageReader()
    reader.feed(encode(header))
    assert reader.lies() == SPACE, "the rest stands in its header"
    assert plane_noted("1.2", SPACE) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FrameOfReferenceUID", ""),
        ("ImagePositionPatient", ["1", "2"]),
        ("ImagePositionPatient", None),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]),
        ("ImageOrientationPatient", ["2", "0", "0", "0", "1", "0"]),
        ("PixelSpacing", ["0", "1"]),
        ("PixelSpacing", ["-1", "1"]),
        ("Rows", 0),
    ],
)
def test_what_makes_no_sense_lies_nowhere(keyword: str, value: object) -> None:
    header = slice_of((0, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1))
    assert len(list(planes_of(header))) == 1
    setattr(header, keyword, value)
    assert list(planes_of(header)) == []
    reader = ImageReader()
    reader.feed(encode(header))
    assert plane_noted("1.2", reader.lies() or "") is None


def test_words_that_are_no_numbers_are_not_noted() -> None:
    assert plane_noted("1.2", "1.2.3|x|y|1\\2\\nan|1\\0\\0\\0\\1\\0|5\\5|1\\1") is None
    assert plane_noted("1.2", "|".join(["1"] * 40)) is None
    told = plane_noted("1.2", "1.2.3|||1\\2\\3|1\\0\\0\\0\\1\\0|5\\6|1\\1")
    assert isinstance(told, Plane) and (told.rows, told.columns, told.half) == (5, 6, 0.5)
