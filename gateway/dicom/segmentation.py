"""What a segmentation marks, as findings in the images that it was made of where its pixels are known to be
theirs, else as marks where it lies in space; nothing is drawn beside its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.contract import Finding
from gateway.dicom.geometry import planes_of
from gateway.dicom.heading import frames_of
from gateway.dicom.marks import Mark
from gateway.dicom.outlines import outlines

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

SEGMENTATIONS: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_LABELMAP: Final = SEGMENTATIONS[1]
_MOST_FRAMES: Final = 2_000
_MOST_PIXELS: Final = 64_000_000  # of one frame
_MOST_IN_ALL: Final = 400_000_000
_MOST_AREAS: Final = 8  # of one frame: of more, the largest
_UNKNOWN: Final = "mark(s) of a segmentation whose place in the images isn't known aren't drawn"


def marks_of(
    dataset: Dataset, path: Path, widths: Mapping[str, int | None]
) -> Iterator[Finding | Mark | str]:
    """`widths`: of the images that it may lie in."""
    from pydicom.pixels.utils import iter_pixels

    labels = {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel", "")).strip()
        for segment in dataset.get("SegmentSequence") or []
    }
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), None)
    pixels, count = int(dataset.Rows) * int(dataset.Columns), frames_of(dataset)
    if not 0 < pixels <= _MOST_PIXELS:
        yield "a segmentation of frames that are too large isn't drawn"
        return
    looked = min(count, _MOST_FRAMES, max(1, _MOST_IN_ALL // pixels))
    if looked < count:
        yield f"of a segmentation only {looked} of {count} frames are drawn"
    grid = _Grid.of(dataset)
    planes = {plane.frame: plane for plane in planes_of(dataset, looked)}
    for number, mask in enumerate(iter_pixels(path, indices=range(looked))):
        groups = frames[number] if number < len(frames) else None
        said = [each for each in (groups, shared) if each is not None]
        place = (0.0, 0.0) if grid is None else _corner_of(groups) or grid.corner(number)
        source = next(filter(None, map(_source_of, said)), None) or _only_one(dataset)
        segment = _segment_of(said) or (0 if grid is None else grid.segment(number, sorted(labels)))
        width = int(dataset.Columns) if grid is None else grid.width
        fits = source is not None and widths.get(source[0]) == width
        plane = planes.get(number + 1 if grid is None else None) or planes.get(None)
        for label, points in _areas(dataset, mask, segment, labels):
            if place is None or (not fits and plane is None):
                yield _UNKNOWN
                continue
            moved = tuple((x + place[0], y + place[1]) for x, y in points)
            if fits and source is not None:
                yield Finding(label, "polygon", moved, source[0], frame=source[1] if grid is None else None)
            elif plane is not None:
                named = frozenset(() if source is None else (source[0],))
                yield Mark(label, "polygon", tuple(map(plane.point, moved)), plane.frame_of_reference, named)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Of a slide's tiles. Where all of them are there, none says where it lies: they follow row by row, for
    each focal plane, then for each segment."""

    width: int
    tile: tuple[int, int]
    across: int
    tiles: int
    planes: int
    full: bool

    @classmethod
    def of(cls, dataset: Dataset) -> _Grid | None:
        if "TotalPixelMatrixColumns" not in dataset:
            return None
        width, height = int(dataset.TotalPixelMatrixColumns), int(dataset.TotalPixelMatrixRows)
        tile = int(dataset.Columns), int(dataset.Rows)
        across, down = -(-width // tile[0]), -(-height // tile[1])
        full = str(dataset.get("DimensionOrganizationType", "")) == "TILED_FULL"
        focal = int(dataset.get("TotalPixelMatrixFocalPlanes") or 1)
        return cls(width, tile, across, across * down, focal, full)

    def corner(self, number: int) -> tuple[float, float] | None:
        row, column = divmod(number % self.tiles, self.across)
        return (column * self.tile[0], row * self.tile[1]) if self.full else None

    def segment(self, number: int, known: Sequence[int]) -> int:
        index = number // (self.tiles * self.planes)
        return known[index] if self.full and index < len(known) else 0


def _areas(
    dataset: Dataset, pixels: NDArray[np.float64], segment: int, labels: Mapping[int, str]
) -> Iterator[tuple[str, tuple[tuple[float, float], ...]]]:
    import numpy as np

    pixels = np.atleast_2d(pixels)
    if str(dataset.SOPClassUID) == _LABELMAP:
        there = set(np.unique(pixels).tolist())
        masks = [(each, pixels == each) for each in labels if each and each in there]
    else:
        fractional = str(dataset.get("SegmentationType", "")) == "FRACTIONAL"
        least = int(dataset.get("MaximumFractionalValue", 255)) / 2 if fractional else 0
        masks = [(segment, pixels > least)]
    for named, mask in masks:
        for points in outlines(mask)[:_MOST_AREAS]:
            yield labels.get(named) or "segment", points


def _segment_of(said: Sequence[Dataset]) -> int:
    """0 where it isn't said."""
    for groups in said:
        for named in groups.get("SegmentIdentificationSequence") or []:
            return int(named.ReferencedSegmentNumber)
    return 0


def _corner_of(groups: Dataset | None) -> tuple[float, float] | None:
    """Of a tile that says where in the whole matrix it lies."""
    for position in (None if groups is None else groups.get("PlanePositionSlideSequence")) or []:
        column = position.get("ColumnPositionInTotalImagePixelMatrix")
        row = position.get("RowPositionInTotalImagePixelMatrix")
        return None if column is None or row is None else (float(column) - 1, float(row) - 1)
    return None


def _source_of(groups: Any) -> tuple[str, int | None] | None:
    for derivation in groups.get("DerivationImageSequence") or []:
        for source in derivation.get("SourceImageSequence") or []:
            frame = source.get("ReferencedFrameNumber")
            return str(source.ReferencedSOPInstanceUID), None if frame is None else int(frame)
    return None


def _only_one(dataset: Dataset) -> tuple[str, int | None] | None:
    named = [
        str(image.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or []
        for image in series.get("ReferencedInstanceSequence") or []
    ]
    return (named[0], None) if len(named) == 1 else None
