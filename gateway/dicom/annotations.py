"""What a report, a presentation state, bulk annotations or a segmentation point at in their images, as
findings; or in space, as marks; and what of it can't be drawn, as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.contract import Finding
from gateway.dicom import bulk, presentations, segmentation
from gateway.dicom.bulk import UNTOLD
from gateway.dicom.graphics import figures
from gateway.dicom.marks import Mark, Seen
from gateway.dicom.part10 import NotDicom
from gateway.dicom.presentations import frames_named
from gateway.dicom.reading import read_before, readable
from gateway.extras import is_installed

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_REPORTS: Final = "1.2.840.10008.5.1.4.1.1.88."
_PRESENTATIONS: Final = "1.2.840.10008.5.1.4.1.1.11."
_LARGEST: Final = 64 * 2**20  # what is larger is no report
_MOST: Final = 5_000  # of one object
_MOST_POINTS: Final = 300_000

# What names a finding, the best first: finding, impression, impression in SNOMED, tracking identifier.
_RANKS = ("121071", "121073", "42752001", "112039")
_NO_WIDTHS: Mapping[str, int | None] = {}
_NO_FIGURE: Final = "mark(s) whose coordinates make no figure aren't drawn"
_NO_DECODER: Final = "a segmentation isn't drawn: what reads its pixels isn't installed"
_TOO_LARGE: Final = "an object of more than 64 MiB isn't drawn"

Read = Iterator["Finding | Mark | str"]


def read_findings(path: Path) -> tuple[Finding, ...]:
    """Nothing for objects of other kinds, and for coordinates that aren't pixels of an image; NotDicom, where
    it can't be read."""
    return marks_in(read_before(path), path).findings if path.stat().st_size <= _LARGEST else ()


def marks_in(dataset: Dataset, path: Path, widths: Mapping[str, int | None] = _NO_WIDTHS) -> Seen:
    """`dataset`: of what lies there, all before the pixels. `widths`: of the images, as far as they are
    known; what marks pixels of its own is only believed to mean theirs where there are as many. A report or
    presentation state that can't be read is NotDicom; of the others it is said."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if f"{sop_class}.".startswith(_REPORTS):
        return _read(dataset, path, _of_report_whole)
    if f"{sop_class}.".startswith(_PRESENTATIONS):
        return _read(dataset, path, presentations.marks_of)
    if sop_class == bulk.BULK:
        return _suspect(dataset, path, "bulk annotations", bulk.marks_of)
    if sop_class in segmentation.SEGMENTATIONS and widths:
        if not is_installed("reports"):
            return Seen(remarks=(_NO_DECODER,))
        return _suspect(
            dataset, path, "a segmentation", lambda whole: segmentation.marks_of(whole, path, widths)
        )
    return Seen()


def _read(dataset: Dataset, path: Path, read: Callable[[Dataset], Read]) -> Seen:
    if path.stat().st_size > _LARGEST:
        return Seen(remarks=(_TOO_LARGE,))
    with readable():
        return _gather(read(dataset))


def _suspect(dataset: Dataset, path: Path, what: str, read: Callable[[Dataset], Read]) -> Seen:
    """Where it can't be decoded nothing of it is drawn; the object itself is delivered all the same."""
    try:
        return _read(dataset, path, read)
    except (NotDicom, RuntimeError, ImportError, MemoryError):
        return Seen(remarks=(f"{what} can't be decoded, and isn't drawn",))


def _gather(read: Read) -> Seen:
    findings: list[Finding] = []
    marks: list[Mark] = []
    remarks = Counter[str]()
    points = 0
    for each in read:
        if isinstance(each, str):
            remarks[each] += 1
            continue
        points += len(each.points)
        if len(findings) + len(marks) >= _MOST or points > _MOST_POINTS:
            remarks["mark(s) of one object that has too many aren't drawn"] += 1
        elif isinstance(each, Mark):
            marks.append(each)
        else:
            findings.append(each)
    told = (f"{count} {what}" if what.startswith("mark(s)") else what for what, count in remarks.items())
    return Seen(tuple(findings), tuple(marks), tuple(told))


def _of_report_whole(dataset: Dataset) -> Read:
    return _of_report(dataset, _label_of(dataset))


def _of_report(item: Dataset, label: str) -> Read:
    """Walk the content tree; an area is labelled by the finding it stands in."""
    children = item.get("ContentSequence") or []
    said = [(_RANKS.index(name), text) for child in children for name, text in _finding_of(child) if text]
    named = min(said, key=lambda ranked: ranked[0])[1] if said else label
    measured = next((number for child in children if (number := _number_of(child))), None)
    for child in children:
        if child.get("ValueType") == "SCOORD":
            yield from _of_area(child, named, measured)
        elif child.get("ValueType") == "SCOORD3D":
            yield from _of_space(child, named, measured, frozenset(_images_of(children)))
        yield from _of_report(child, named)


def _of_area(item: Dataset, label: str, measured: str | None) -> Read:
    drawn = list(figures(str(item.get("GraphicType", "")), item.get("GraphicData")))
    if not drawn:
        yield _NO_FIGURE
    origin = item.get("PixelOriginInterpretation")
    for child in item.get("ContentSequence") or []:
        for reference in child.get("ReferencedSOPSequence") or []:
            frames: list[int | None] = [None] if origin == "VOLUME" else frames_named(reference)
            if origin == "FRAME" and frames == [None]:
                frames = [UNTOLD]
            uid = str(reference.ReferencedSOPInstanceUID)
            for shape, points in drawn:
                for frame in frames:
                    flat = tuple((x, y) for x, y, *_ in points)
                    yield Finding(label, shape, flat, uid, measure=measured, frame=frame)


def _of_space(item: Dataset, label: str, measured: str | None, named: frozenset[str]) -> Read:
    kind = str(item.get("GraphicType", ""))
    if kind == "ELLIPSOID":
        yield "mark(s) that are ellipsoids aren't drawn"
        return
    space = str(item.get("ReferencedFrameOfReferenceUID", ""))
    drawn = list(figures(kind, item.get("GraphicData"), 3))
    if not drawn:
        yield _NO_FIGURE
    for shape, points in drawn:
        solid = tuple((x, y, z) for x, y, z in points)
        yield Mark(label, shape, solid, space, named, measured)


def _images_of(children: object) -> Iterator[str]:
    """That a group's items name beside the areas: where these were seen."""
    for child in children:  # type: ignore[attr-defined]
        if child.get("ValueType") == "IMAGE":
            for reference in child.get("ReferencedSOPSequence") or []:
                yield str(reference.get("ReferencedSOPInstanceUID"))


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
