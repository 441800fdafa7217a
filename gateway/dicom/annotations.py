"""What a report, a presentation state, bulk annotations or a segmentation point at in their images, as
findings."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.contract import Finding
from gateway.dicom import segmentation
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.extras import is_installed

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_PRESENTATIONS = "1.2.840.10008.5.1.4.1.1.11."
_BULK = "1.2.840.10008.5.1.4.1.1.91.1"
_LARGEST = 64 * 2**20  # what is larger is no report
_MOST = 2000  # of a group: of ten thousand cells nobody looks at each

Shape = Literal["box", "polygon", "polyline", "point", "none"]
Points = tuple[tuple[float, float], ...]
# What names a finding, the best first: finding, impression, impression in SNOMED, tracking identifier.
_RANKS = ("121071", "121073", "42752001", "112039")
UNTOLD = 0  # coordinates of a frame, and nobody says of which
_NO_WIDTHS: Mapping[str, int | None] = {}
_SHAPES: dict[str, Shape] = {"POINT": "point", "MULTIPOINT": "point", "POLYLINE": "polyline"}


def read_findings(path: Path) -> tuple[Finding, ...]:
    """Nothing for objects of other kinds, and for coordinates that aren't pixels of an image; NotDicom, where
    it can't be read."""
    return () if path.stat().st_size > _LARGEST else findings_in(read_before(path), path)


def findings_in(
    dataset: Dataset, path: Path, widths: Mapping[str, int | None] = _NO_WIDTHS
) -> tuple[Finding, ...]:
    """`dataset`: of what lies there, all before the pixels. `widths`: of the images, as far as they are
    known; what marks pixels of its own is only believed to mean theirs where there are as many."""
    if path.stat().st_size > _LARGEST:
        return ()
    sop_class = f"{dataset.get('SOPClassUID', '')}."
    if sop_class.removesuffix(".") in (_BULK, *segmentation.SEGMENTATIONS):
        return _of_marks(dataset, path, widths)
    with readable():
        if sop_class.startswith(_REPORTS):
            return tuple(_of_report(dataset, _label_of(dataset)))
        if sop_class.startswith(_PRESENTATIONS):
            return tuple(_of_presentation(dataset))
        return ()


def _of_marks(dataset: Dataset, path: Path, widths: Mapping[str, int | None]) -> tuple[Finding, ...]:
    """Where they can't be decoded nothing is drawn; the object itself is delivered all the same."""
    with suppress(NotDicom, RuntimeError, ImportError), readable():
        if str(dataset.SOPClassUID) == _BULK:
            return tuple(_of_bulk(dataset))
        if widths and is_installed("reports"):
            return tuple(segmentation.findings_of(dataset, path, widths))
    return ()


def _of_report(item: Dataset, label: str) -> Iterator[Finding]:
    """Walk the content tree; an area is labelled by the finding it stands in."""
    children = item.get("ContentSequence") or []
    said = [(_RANKS.index(name), text) for child in children for name, text in _finding_of(child) if text]
    named = min(said, key=lambda ranked: ranked[0])[1] if said else label
    measured = next((number for child in children if (number := _number_of(child))), None)
    for child in children:
        if child.get("ValueType") == "SCOORD":
            yield from _of_area(child, named, measured)
        yield from _of_report(child, named)


def _of_area(item: Dataset, label: str, measured: str | None) -> Iterator[Finding]:
    shape, points = _shape(str(item.get("GraphicType", "")), _pairs(item.get("GraphicData")))
    origin = item.get("PixelOriginInterpretation")
    for child in item.get("ContentSequence") or []:
        for reference in child.get("ReferencedSOPSequence") or []:
            frames: list[int | None] = [None] if origin == "VOLUME" else _frames_of(reference)
            if origin == "FRAME" and frames == [None]:
                frames = [UNTOLD]
            yield from _findings(label, shape, points, reference, frames, measured)


def _of_bulk(dataset: Dataset) -> Iterator[Finding]:
    """Those in pixels of a slide's image, which stand in long lists of numbers."""
    images = [str(image.ReferencedSOPInstanceUID) for image in dataset.get("ReferencedImageSequence") or []]
    if dataset.get("AnnotationCoordinateType") != "2D" or len(images) != 1:
        return
    origin = dataset.get("PixelOriginInterpretation", "VOLUME")
    frames = dataset.ReferencedImageSequence[0].get("ReferencedFrameNumber") if origin == "FRAME" else None
    frame = UNTOLD if origin == "FRAME" and not isinstance(frames, int) else frames
    for group in dataset.get("AnnotationGroupSequence") or []:
        label = str(
            group.get("AnnotationGroupLabel") or _meaning(group.get("AnnotationPropertyTypeCodeSequence"))
        )
        parts = list(_parts_of(group))
        kind = str(group.get("GraphicType", ""))
        for part in parts[:_MOST]:
            shape, points = _bulk_shape(kind, part)
            if points:
                yield Finding(label.strip(), shape, points, images[0], frame=frame)
        if len(parts) > _MOST:
            yield Finding(f"{label.strip()}: {len(parts) - _MOST} more", "none", (), images[0])


def _bulk_shape(kind: str, points: Points) -> tuple[Shape, Points]:
    if kind == "RECTANGLE":
        return "polygon", points
    if kind == "ELLIPSE":  # the ends of both axes
        return _shape(kind, points)
    return ("polygon", points) if kind == "POLYGON" else (_SHAPES.get(kind, "polyline"), points)


def _parts_of(group: Dataset) -> Iterator[Points]:
    """The points of each annotation."""
    packed = group.get("PointCoordinatesData") or group.get("DoublePointCoordinatesData") or b""
    letter = "f" if "PointCoordinatesData" in group else "d"
    size = struct.calcsize(letter)
    numbers = struct.unpack(f"<{len(packed) // size}{letter}", packed[: len(packed) // size * size])
    points = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    indexes = group.get("LongPrimitivePointIndexList")
    if indexes is None:
        each = {"POINT": 1, "ELLIPSE": 4, "RECTANGLE": 4}.get(str(group.get("GraphicType", "")), len(points))
        begins = list(range(0, len(points), max(each, 1)))
    else:
        begins = [(index - 1) // 2 for index in struct.unpack(f"<{len(indexes) // 4}I", indexes)]
    for begin, end in zip(begins, [*begins[1:], len(points)], strict=True):
        yield points[begin:end]


def _of_presentation(dataset: Dataset) -> Iterator[Finding]:
    everywhere = [
        image
        for series in dataset.get("ReferencedSeriesSequence") or []
        for image in series.get("ReferencedImageSequence") or []
    ]
    for annotation in dataset.get("GraphicAnnotationSequence") or []:
        named = annotation.get("ReferencedImageSequence") or everywhere
        texts = annotation.get("TextObjectSequence") or []
        label = next((str(text.get("UnformattedTextValue", "")).strip() for text in texts), "")
        for graphic in annotation.get("GraphicObjectSequence") or []:
            units = graphic.get("GraphicAnnotationUnits")
            if units not in ("PIXEL", "MATRIX"):
                continue
            shape, points = _shape(str(graphic.get("GraphicType", "")), _pairs(graphic.get("GraphicData")))
            for image in named:
                frames = _frames_of(image) if units == "PIXEL" else [None]
                yield from _findings(label, shape, points, image, frames, None)


def _findings(
    label: str,
    shape: Shape,
    points: Points,
    image: Dataset,
    frames: Iterable[int | None],
    measured: str | None,
) -> Iterator[Finding]:
    uid = str(image.ReferencedSOPInstanceUID)
    parts = [(point,) for point in points] if shape == "point" else [points] if len(points) > 1 else []
    for frame in frames:
        for part in parts:
            yield Finding(label, shape, part, uid, measure=measured, frame=frame)


def _frames_of(reference: Dataset) -> list[int | None]:
    """The frames that the coordinates count in; None for the image as a whole."""
    numbers = reference.get("ReferencedFrameNumber") or [None]
    return [numbers] if isinstance(numbers, int) else list(numbers)


def _shape(kind: str, points: Points) -> tuple[Shape, Points]:
    if kind == "CIRCLE" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        radius = ((edge_x - x) ** 2 + (edge_y - y) ** 2) ** 0.5
        return "box", ((x - radius, y - radius), (x + radius, y + radius))
    if kind == "ELLIPSE" and len(points) == 4:
        across, down = [x for x, _ in points], [y for _, y in points]
        return "box", ((min(across), min(down)), (max(across), max(down)))
    if kind in ("POLYLINE", "INTERPOLATED") and len(points) > 3 and points[0] == points[-1]:
        return "polygon", points[:-1]
    if kind == "POLYGON":
        return "polygon", points
    return _SHAPES.get(kind, "polyline"), points


def _pairs(numbers: object) -> Points:
    try:
        values = [float(number) for number in numbers]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ()
    return tuple(zip(values[::2], values[1::2], strict=False))


def _label_of(dataset: Dataset) -> str:
    return _meaning(dataset.get("ConceptNameCodeSequence"))


def _finding_of(item: Dataset) -> Iterator[tuple[str, str]]:
    """A coded or written finding among a group's items: what kind of name it is, and its text."""
    name = _code(item.get("ConceptNameCodeSequence"))
    if name in _RANKS and item.get("ValueType") == "CODE":
        yield name, _meaning(item.get("ConceptCodeSequence"))
    elif name in _RANKS and item.get("ValueType") == "TEXT":
        yield name, str(item.get("TextValue", "")).strip()


def _number_of(item: Dataset) -> str | None:
    if item.get("ValueType") != "NUM":
        return None
    for value in item.get("MeasuredValueSequence") or []:
        unit = _code(value.get("MeasurementUnitsCodeSequence"))
        number = str(value.get("NumericValue", ""))
        return f"{number} {unit}" if unit not in ("", "1", "{probability}") else number
    return None


def _meaning(codes: object) -> str:
    return next((str(code.get("CodeMeaning", "")) for code in codes or []), "")  # type: ignore[attr-defined]


def _code(codes: object) -> str:
    return next((str(code.get("CodeValue", "")) for code in codes or []), "")  # type: ignore[attr-defined]
