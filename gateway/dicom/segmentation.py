"""What a segmentation marks in the images that it was made of, as findings: only where its pixels are known
to be theirs, so that nothing is drawn beside its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.contract import Finding
from gateway.dicom.outlines import outlines

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_LABELMAP = SEGMENTATIONS[1]
_MOST_FRAMES = 500
_MOST_PIXELS = 64_000_000  # of one frame
_MOST_AREAS = 8  # of one frame: of more, the largest


def findings_of(dataset: Dataset, path: Path, widths: Mapping[str, int | None]) -> Iterator[Finding]:
    """`widths`: of the images that it may lie in."""
    labels = {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel", "")).strip()
        for segment in dataset.get("SegmentSequence") or []
    }
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), None)
    if int(dataset.Rows) * int(dataset.Columns) > _MOST_PIXELS:
        return
    tiled = "TotalPixelMatrixColumns" in dataset
    width = int(dataset.TotalPixelMatrixColumns if tiled else dataset.Columns)
    for number, groups in enumerate(frames[:_MOST_FRAMES]):
        place = _corner_of(groups) if tiled else (0.0, 0.0)
        source = _source_of(groups) or (None if shared is None else _source_of(shared)) or _only_one(dataset)
        if source is None or place is None or widths.get(source[0]) != width:
            continue
        segment = _segment_of(groups, shared)
        for label, points in _areas(dataset, path, number, segment, labels):
            moved = tuple((x + place[0], y + place[1]) for x, y in points)
            yield Finding(label, "polygon", moved, source[0], frame=None if tiled else source[1])


def _areas(
    dataset: Dataset, path: Path, number: int, segment: int, labels: Mapping[int, str]
) -> Iterator[tuple[str, tuple[tuple[float, float], ...]]]:
    import numpy as np
    from pydicom.pixels.utils import pixel_array

    pixels = np.atleast_2d(pixel_array(path, index=number))
    if str(dataset.SOPClassUID) == _LABELMAP:
        masks = [(each, pixels == each) for each in labels if each]
    else:
        fractional = str(dataset.get("SegmentationType", "")) == "FRACTIONAL"
        least = int(dataset.get("MaximumFractionalValue", 255)) / 2 if fractional else 0
        masks = [(segment, pixels > least)]
    for named, mask in masks:
        for points in outlines(mask)[:_MOST_AREAS]:
            yield labels.get(named) or "segment", points


def _segment_of(groups: Dataset, shared: Dataset | None) -> int:
    """0 where the pixels themselves say which."""
    for each in (groups, shared):
        for named in (each.get("SegmentIdentificationSequence") if each is not None else None) or []:
            return int(named.ReferencedSegmentNumber)
    return 0


def _corner_of(groups: Dataset) -> tuple[float, float] | None:
    """Of a tile, in the whole matrix; those that are only counted through aren't looked at."""
    for position in groups.get("PlanePositionSlideSequence") or []:
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
