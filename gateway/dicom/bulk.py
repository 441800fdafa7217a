"""Bulk annotations: thousands of figures in long lists of numbers, in pixels of a slide's image or in
millimetres of its slide."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from gateway.contract import Finding
from gateway.dicom.graphics import Figure, figures
from gateway.dicom.marks import Mark

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

BULK: Final = "1.2.840.10008.5.1.4.1.1.91.1"
UNTOLD: Final = 0  # coordinates of a frame, and nobody says of which
_MOST: Final = 2000  # of a group: of ten thousand cells nobody looks at each
_EACH: Final = {"POINT": 1, "ELLIPSE": 4, "RECTANGLE": 4}


def marks_of(dataset: Dataset) -> Iterator[Finding | Mark | str]:
    images = [str(image.ReferencedSOPInstanceUID) for image in dataset.get("ReferencedImageSequence") or []]
    in_space = dataset.get("AnnotationCoordinateType") == "3D"
    if not in_space and len(images) != 1:
        yield "bulk annotations that name no image, or several, aren't drawn"
        return
    frame = None if in_space else _frame_of(dataset)
    for group in dataset.get("AnnotationGroupSequence") or []:
        label = _label_of(group)
        common = group.get("CommonZCoordinateValue") if in_space else None
        count, parts = _parts_of(group, 3 if in_space and common is None else 2)
        for part in parts:
            shape, points = part
            if not in_space:
                yield Finding(label, shape, tuple((x, y) for x, y, *_ in points), images[0], frame=frame)
                continue
            lifted = tuple((x, y, float(z[0] if z else common or 0)) for x, y, *z in points)
            yield Mark(label, shape, lifted, str(dataset.get("FrameOfReferenceUID", "")), frozenset(images))
        if count > _MOST:
            yield Finding(f"{label}: {count - _MOST} more", "none", (), None if in_space else images[0])


def _frame_of(dataset: Dataset) -> int | None:
    if dataset.get("PixelOriginInterpretation", "VOLUME") != "FRAME":
        return None
    number = dataset.ReferencedImageSequence[0].get("ReferencedFrameNumber")
    return number if isinstance(number, int) else UNTOLD


def _label_of(group: Dataset) -> str:
    if told := str(group.get("AnnotationGroupLabel") or "").strip():
        return told
    coded = group.get("AnnotationPropertyTypeCodeSequence") or []
    return next((str(code.get("CodeMeaning", "")).strip() for code in coded), "")


def _parts_of(group: Dataset, dimensions: int) -> tuple[int, Iterator[Figure]]:
    """How many there are, and the first of them."""
    kind = str(group.get("GraphicType", ""))
    single = "PointCoordinatesData" in group
    packed: bytes = group.get("PointCoordinatesData" if single else "DoublePointCoordinatesData") or b""
    letter, size = ("f", 4) if single else ("d", 8)
    total = len(packed) // size // dimensions
    indexes: bytes | None = group.get("LongPrimitivePointIndexList")
    begins: Sequence[int]
    if indexes is None:
        begins = range(0, total, _EACH.get(kind, max(total, 1)))
    else:
        begins = [(index - 1) // dimensions for (index,) in struct.iter_unpack("<I", indexes)]

    def parts() -> Iterator[Figure]:
        for number, begin in enumerate(begins[:_MOST]):
            end = begins[number + 1] if number + 1 < len(begins) else total
            if not 0 <= begin < end <= total:
                raise ValueError("a figure begins where there is no number")
            numbers = struct.unpack_from(
                f"<{(end - begin) * dimensions}{letter}", packed, begin * dimensions * size
            )
            yield from figures(kind, numbers, dimensions)

    return len(begins), parts()
