"""Where an image lies in its patient, or a slide's on its slide: pixels to millimetres and back.

Pixels count from the upper left corner of the upper left pixel, as annotations do; what DICOM calls an
image's position is the middle of that pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.dicom.heading import frames_of

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

Vector = tuple[float, float, float]
Pixel = tuple[float, float]

_SKEW: Final = 0.01  # by which directions may miss a length of one and a right angle
_LEAST_HALF: Final = 0.5  # mm: what is marked in a slice was seen in all of its thickness
_MOST_FRAMES: Final = 5_000
_THICKNESSES: Final = ("SliceThickness", "SpacingBetweenSlices")


@dataclass(frozen=True, slots=True)
class Plane:
    """`corner`: of the upper left pixel; `across`, `down`: to the next column, the next row. `half`: how far
    from it something may be that still lies in it; a slide has but one plane."""

    sop_instance_uid: str
    frame: int | None
    frame_of_reference: str
    corner: Vector
    across: Vector
    down: Vector
    normal: Vector
    columns: int
    rows: int
    half: float

    def pixel(self, point: Vector) -> Pixel:
        to = _minus(point, self.corner)
        return _dot(to, self.across) / _dot(self.across, self.across), _dot(to, self.down) / _dot(
            self.down, self.down
        )

    def distance(self, point: Vector) -> float:
        return 0.0 if math.isinf(self.half) else abs(_dot(_minus(point, self.corner), self.normal))

    def point(self, pixel: Pixel) -> Vector:
        (x, y, z), (column, row) = self.corner, pixel
        (ax, ay, az), (dx, dy, dz) = self.across, self.down
        return x + column * ax + row * dx, y + column * ay + row * dy, z + column * az + row * dz

    def holds(self, pixel: Pixel) -> bool:
        return 0 <= pixel[0] <= self.columns and 0 <= pixel[1] <= self.rows


def planes_of(header: Dataset, most: int = _MOST_FRAMES) -> Iterator[Plane]:
    """Of an image's frames, or of a slide as a whole; none where it doesn't say, or makes no sense."""
    if "TotalPixelMatrixColumns" in header:
        yield from _of_slide(header)
    elif frames := header.get("PerFrameFunctionalGroupsSequence"):
        shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), None)
        for number, groups in enumerate(frames[:most], 1):
            yield from _of_frame(header, number, [each for each in (groups, shared) if each is not None])
    elif frames_of(header) == 1:
        yield from _plane(
            header,
            None,
            header.get("ImagePositionPatient"),
            header.get("ImageOrientationPatient"),
            header.get("PixelSpacing"),
            _half_of(header.get(each) for each in _THICKNESSES),
        )


def plane_noted(sop_instance_uid: str, lies: str) -> Plane | None:
    """As `gateway.dicom.part10.ImageReader` notes it of an image on its way; None where the header tells."""
    space, thickness, apart, position, orientation, size, spacing = (*lies.split("|"), *[""] * 7)[:7]
    counted = _numbers(size.split("\\"))
    if len(counted) != 2:
        return None
    return _build(
        (sop_instance_uid, None, space),
        _numbers(position.split("\\")),
        _numbers(orientation.split("\\")),
        _numbers(spacing.split("\\")),
        int(counted[1]),
        int(counted[0]),
        _half_of((thickness, apart)),
    )


def space_noted(lies: str) -> str:
    """Its frame of reference."""
    return lies.partition("|")[0]


def _of_slide(header: Dataset) -> Iterator[Plane]:
    """Its Z says nothing of where in it something is."""
    for origin in header.get("TotalPixelMatrixOriginSequence") or []:
        position = (
            origin.get("XOffsetInSlideCoordinateSystem"),
            origin.get("YOffsetInSlideCoordinateSystem"),
            0,
        )
        spacing = None
        for groups in header.get("SharedFunctionalGroupsSequence") or []:
            spacing = _among([groups], "PixelMeasuresSequence", "PixelSpacing")
        orientation = header.get("ImageOrientationSlide")
        yield from _plane(header, None, position, orientation, spacing, math.inf)
        return


def _of_frame(header: Dataset, number: int, groups: Sequence[Dataset]) -> Iterator[Plane]:
    yield from _plane(
        header,
        number,
        _among(groups, "PlanePositionSequence", "ImagePositionPatient"),
        _among(groups, "PlaneOrientationSequence", "ImageOrientationPatient"),
        _among(groups, "PixelMeasuresSequence", "PixelSpacing"),
        _half_of(_among(groups, "PixelMeasuresSequence", each) for each in _THICKNESSES),
    )


def _among(groups: Iterable[Dataset], sequence: str, keyword: str) -> object:
    for group in groups:
        for item in group.get(sequence) or []:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return None


def _half_of(thicknesses: Iterable[object]) -> float:
    told = (number / 2 for each in thicknesses for number in _numbers([each]))
    return max([_LEAST_HALF, *told])


def _plane(
    header: Dataset, frame: int | None, position: object, orientation: object, spacing: object, half: float
) -> Iterator[Plane]:
    whose = str(header.get("SOPInstanceUID", "")), frame, str(header.get("FrameOfReferenceUID") or "")
    columns = header.get("TotalPixelMatrixColumns") or header.get("Columns") or 0
    rows = header.get("TotalPixelMatrixRows") or header.get("Rows") or 0
    built = _build(
        whose, _numbers(position), _numbers(orientation), _numbers(spacing), int(columns), int(rows), half
    )
    if built is not None:
        yield built


def _build(
    whose: tuple[str, int | None, str],
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: Sequence[float],
    columns: int,
    rows: int,
    half: float,
) -> Plane | None:
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or not whose[2]:
        return None
    along = orientation[0], orientation[1], orientation[2]
    below = orientation[3], orientation[4], orientation[5]
    lengths = _dot(along, along), _dot(below, below)
    if any(abs(each - 1) > _SKEW for each in lengths) or abs(_dot(along, below)) > _SKEW:
        return None
    if min(spacing) <= 0 or columns <= 0 or rows <= 0:
        return None
    down, across = _times(below, spacing[0]), _times(along, spacing[1])
    middle = position[0], position[1], position[2]
    corner = _minus(_minus(middle, _times(across, 0.5)), _times(down, 0.5))
    return Plane(*whose, corner, across, down, _cross(along, below), columns, rows, half)


def _numbers(values: object) -> list[float]:
    """No numbers where one of them is none."""
    try:
        numbers = [float(each) for each in values]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _dot(this: Vector, other: Vector) -> float:
    return this[0] * other[0] + this[1] * other[1] + this[2] * other[2]


def _cross(this: Vector, other: Vector) -> Vector:
    (a, b, c), (d, e, f) = this, other
    return b * f - c * e, c * d - a * f, a * e - b * d


def _minus(this: Vector, other: Vector) -> Vector:
    return this[0] - other[0], this[1] - other[1], this[2] - other[2]


def _times(vector: Vector, factor: float) -> Vector:
    return vector[0] * factor, vector[1] * factor, vector[2] * factor
