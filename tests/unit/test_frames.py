"""Where a frame lies in the image that it is a part of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from gateway.dicom.heading import frames_of, place_of_frame


def tiled(across: int, down: int, *, planes: int = 1, ragged: int = 0) -> Dataset:
    header = Dataset()
    header.Columns, header.Rows = 100, 50
    header.TotalPixelMatrixColumns = 100 * across - ragged
    header.TotalPixelMatrixRows = 50 * down - ragged
    header.NumberOfFrames = across * down * planes
    return header


def sparse(corners: list[tuple[int, int]]) -> Dataset:
    header = tiled(4, 4)
    header.NumberOfFrames = len(corners)
    header.PerFrameFunctionalGroupsSequence = [Dataset() for _ in corners]
    for groups, (column, row) in zip(header.PerFrameFunctionalGroupsSequence, corners, strict=True):
        place = Dataset()
        place.ColumnPositionInTotalImagePixelMatrix = column + 1
        place.RowPositionInTotalImagePixelMatrix = row + 1
        groups.PlanePositionSlideSequence = [place]
    return header


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 49))
def test_the_frames_of_a_full_slide_follow_row_by_row_plane_by_plane(
    across: int, down: int, planes: int, ragged: int
) -> None:
    header = tiled(across, down, planes=planes, ragged=ragged)
    places = [(100 * column, 50 * row) for row in range(down) for column in range(across)] * planes
    found = [place_of_frame(header, number + 1) for number in range(len(places))]
    assert found == places
    assert place_of_frame(header, len(places) + 1) is None and place_of_frame(header, 0) is None


def test_the_frames_of_a_sparse_slide_lie_where_each_says() -> None:
    header = sparse([(300, 150), (0, 50)])
    assert [place_of_frame(header, number) for number in (1, 2, 3)] == [(300, 150), (0, 50), None]
    del header.PerFrameFunctionalGroupsSequence[0].PlanePositionSlideSequence
    assert place_of_frame(header, 1) is None


def test_a_frame_of_what_is_no_mosaic_is_an_image_of_its_own() -> None:
    header = Dataset()
    header.NumberOfFrames = 3
    assert [place_of_frame(header, number) for number in (0, 3, 4)] == [None, (0, 0), None]
    del header.NumberOfFrames
    assert [place_of_frame(header, number) for number in (0, 1, 2)] == [(0, 0), (0, 0), None]


@pytest.mark.parametrize(
    ("written", "frames"),
    [(b"12", 12), (b" +3 ", 3), (b"1A", 1), (b"2\\3", 2), (b"", 1), (b"x", 1), (None, 1)],
)
def test_frames_are_counted_even_where_somebody_wrote_letters(written: bytes | None, frames: int) -> None:
    header = Dataset()
    tag = Tag("NumberOfFrames")
    header[tag] = RawDataElement(tag, "IS", len(written or b""), written, 0, False, True)
    assert frames_of(header) == frames
