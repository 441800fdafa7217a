"""A vendor's result objects as they leave: of the true patient and study, in a series and under UIDs of their
own, named after their maker.

Headers are written anew, pixels are copied unread in their transfer syntax (a deflated object, and one that
isn't encoded as it says, is read whole: then memory is bounded by the object's size). A UID that has to be
another follows from the job and the old one, so that a second try makes the very same objects.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.contract import NeedsHuman, Retryable
from gateway.dicom.identity import text_in
from gateway.dicom.reading import read_before, read_whole, unreadable

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.sequence import Sequence as Items


# Attributes that every object of a study has, known or not, and such that are there when they are known.
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
_KNOWN = ("StudyDescription", "IssuerOfPatientID")
_LISTS = ("ReferencedSOPSequence", "ReferencedImageSequence")
NOTHING_TAKEN: Mapping[str, int] = {}
NO_PREDECESSORS: Mapping[str, str] = {}
_FIRST_SERIES = 9000
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_KINDS = {
    "SR": "report",
    "PR": "annotations",
    "SEG": "segmentation",
    "DOC": "document",
    "KO": "key images",
}


@dataclass(frozen=True, slots=True)
class Source:
    """The study that was analysed: one of its headers, and what it consists of (class by SOP instance)."""

    header: Dataset
    instances: Mapping[str, str | None]
    series: Collection[str]

    def __repr__(self) -> str:
        return "Source()"


@dataclass(frozen=True, slots=True)
class Maker:
    """The job, and the application as its users know it. `version`: the vendor's own, if it was told. `line`:
    what all jobs have in common that make the same anew, of which this is the `run`-th. `predecessor`: the
    report of the one before."""

    job_id: str
    display_name: str
    manufacturer: str = ""
    version: str = ""
    line: str = ""
    run: int = 1
    predecessor: str = ""

    def make_uid(self, *words: str) -> str:
        """The same at every try."""
        return make_uid(self.job_id, *words)

    def make_series_uid(self, *words: str) -> str:
        """The same at every run too: viewers show the newest of a series."""
        return make_uid(self.line or self.job_id, *words)


def make_uid(*words: str) -> str:
    digest = hashlib.sha256("/".join(("gateway", *words)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclass(frozen=True, slots=True)
class Leaving:
    """An object as it leaves, and the SOP instance UIDs that it came and leaves under."""

    path: Path
    came_as: str
    leaves_as: str


@dataclass(slots=True)
class _Object:
    path: Path
    dataset: FileDataset
    tail: int | None  # where in the file the bytes begin that are copied; None: all was read
    sop: str = ""
    series: str = ""
    fresh_sop: str = ""
    fresh_series: str = ""


@dataclass(slots=True)
class _Renamed:
    """What references follow: old to new, but not where an old UID means the source itself."""

    objects: dict[str, _Object] = field(default_factory=dict)
    source: Source | None = None
    any: bool = False

    def find(self, reference: Dataset) -> _Object | None:
        found = self.objects.get(str(reference.get("ReferencedSOPInstanceUID", "")))
        if found is None or self.source is None or found.sop not in self.source.instances:
            return found
        named, made = reference.get("ReferencedSOPClassUID"), found.dataset.get("SOPClassUID")
        return found if named == made != self.source.instances[found.sop] else None


def correct(
    files: Sequence[Path],
    into: Path,
    source: Source,
    maker: Maker,
    taken: Mapping[str, int] = NOTHING_TAKEN,
    predecessors: Mapping[str, str] = NO_PREDECESSORS,
) -> tuple[Leaving, ...]:
    """The objects, one new file for each. `taken`: by the SOP instance UID that the vendor gave, how many of
    the UIDs that it leads to hold something else where it goes. `predecessors`: by it too, under which UID
    the report of the run before left that it replaces."""
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _explained():
        objects = [_open(path) for path in files]
        for made in objects:
            check_owner(made.dataset, source.header)
        renamed = _rename(objects, source, maker, taken)
        leaving = []
        for number, made in enumerate(objects):
            if renamed.any:
                _follow(made.dataset, renamed)
            stamp(made.dataset, source.header)
            _name(made, maker)
            if (before := predecessors.get(made.sop, made.fresh_sop)) != made.fresh_sop:
                follow_up(made.dataset, before)
                made.dataset.InstanceNumber = maker.run
            leaving.append(Leaving(into / f"object-{number:04d}.dcm", made.sop, made.fresh_sop))
            _write(made, leaving[-1].path)
    return tuple(leaving)


def reports_among(files: Sequence[Path]) -> list[str]:
    """The SOP instance UIDs of the structured reports."""
    with _explained():
        headers = [read_before(path, keywords=["SOPClassUID", "SOPInstanceUID"]) for path in files]
    return [
        text_in(header, "SOPInstanceUID")
        for header in headers
        if text_in(header, "SOPClassUID").startswith(_REPORTS)
    ]


def check_owner(result: Dataset, truth: Dataset) -> None:
    """Whose result it says it is; a result that says nothing gets its patient from the study."""
    if text_in(result, "StudyInstanceUID") != text_in(truth, "StudyInstanceUID"):
        raise NeedsHuman(
            "the vendor returned a result for another study",
            "Don't deliver it: find out at the vendor whose it is, then cancel or retry the job.",
        )
    named, true = text_in(result, "PatientID"), text_in(truth, "PatientID")
    differs = (
        named != true if named else _differs(text_in(result, "PatientName"), text_in(truth, "PatientName"))
    )
    if differs:
        raise NeedsHuman(
            "the vendor returned a result for another patient than the study's",
            "Don't deliver it: find out at the vendor whose it is, then cancel or retry the job.",
        )


def follow_up(report: Dataset, predecessor: str) -> None:
    """It replaces the one of that SOP instance UID, of its own kind and series."""
    from pydicom.dataset import Dataset

    named, series, study = Dataset(), Dataset(), Dataset()
    named.ReferencedSOPClassUID = report.SOPClassUID
    named.ReferencedSOPInstanceUID = predecessor
    series.SeriesInstanceUID = report.SeriesInstanceUID
    series.ReferencedSOPSequence = [named]
    study.StudyInstanceUID = report.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    report.PredecessorDocumentsSequence = [study]


def stamp(dataset: Dataset, truth: Dataset) -> None:
    """The patient's and the study's attributes, letter for letter as the study itself has them."""
    values = {keyword: text_in(truth, keyword) for keyword in (*_REQUIRED, *_KNOWN)}
    _make_room(dataset, "".join(values.values()))
    for keyword, value in values.items():
        if value or keyword in _REQUIRED:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)


def complete(header: Dataset) -> Dataset:
    """With every attribute that all objects of a study have; what isn't known is empty."""
    for keyword in _REQUIRED:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def shorten(text: str) -> str:
    """For an attribute of 64 letters, which some readers count in bytes."""
    return " ".join(text.split()).replace("\\", "/").encode()[:64].decode(errors="ignore").strip()


def _open(path: Path) -> _Object:
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

    with path.open("rb") as file:
        dataset = read_before(file)
        tail: int | None = file.tell()
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian))
    dataset.file_meta.TransferSyntaxUID = syntax
    implicit = syntax.is_implicit_VR
    mixed = any(getattr(raw, "is_implicit_VR", implicit) != implicit for raw in dataset.values())
    if syntax == DeflatedExplicitVRLittleEndian or mixed:
        dataset, tail = read_whole(path), None
        dataset.file_meta.TransferSyntaxUID = syntax
        deque(dataset.iterall(), maxlen=0)  # what was only stepped over can't be encoded otherwise
    sop, series = text_in(dataset, "SOPInstanceUID"), text_in(dataset, "SeriesInstanceUID")
    return _Object(path, dataset, tail, sop, series, sop, series)


def _rename(objects: Iterable[_Object], source: Source, maker: Maker, taken: Mapping[str, int]) -> _Renamed:
    renamed = _Renamed(source=source)
    for number, made in enumerate(objects):
        if made.series in source.series:
            made.fresh_series = maker.make_series_uid("series", made.series)
        renamings = taken.get(made.sop, 0) + (made.sop in source.instances)
        words = [str(number)] if made.sop in renamed.objects else []
        words += ["again"] * (renamings - 1 + len(words))
        if renamings or made.sop in renamed.objects:
            made.fresh_sop = maker.make_uid("object", made.sop, *words)
        renamed.objects.setdefault(made.sop, made)
        renamed.any |= (made.sop, made.series) != (made.fresh_sop, made.fresh_series)
    return renamed


def _follow(dataset: Dataset, renamed: _Renamed) -> None:
    """References between the results lead to where these are now."""
    for sequence in _sequences(dataset):
        sequence[:] = [part for item in sequence for part in _regroup(item, renamed)]
        for item in sequence:
            if (target := renamed.find(item)) is not None:
                item.ReferencedSOPInstanceUID = target.fresh_sop
            _follow(item, renamed)


def _regroup(item: Dataset, renamed: _Renamed) -> list[Dataset]:
    """A list of a series' instances: those that moved to another series get a list of their own."""
    from pydicom.dataset import Dataset

    if "SeriesInstanceUID" not in item:
        return [item]
    here = str(item.SeriesInstanceUID)
    lists = {here: item}
    left = False
    for keyword in _LISTS:
        stay = []
        for reference in item.get(keyword) or ():
            target = renamed.find(reference)
            series = here if target is None else target.fresh_series
            if series == here:
                stay.append(reference)
                continue
            apart = lists.setdefault(series, Dataset())
            apart.SeriesInstanceUID = series
            setattr(apart, keyword, [*apart.get(keyword, ()), reference])
        if keyword in item and (stay or len(lists) > 1):
            setattr(item, keyword, stay)
        left = left or bool(stay)
    return list(lists.values()) if left or len(lists) == 1 else list(lists.values())[1:]


def _sequences(dataset: Dataset) -> Iterator[Items]:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if raw is not None and raw.VR in ("SQ", "UN", None):
            element = dataset[tag]
            if element.VR == "SQ":
                yield element.value


def _name(made: _Object, maker: Maker) -> None:
    from pydicom.uid import UID

    dataset, meta = made.dataset, made.dataset.file_meta
    _make_room(dataset, maker.display_name + maker.manufacturer + maker.version)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID(made.fresh_sop)
    dataset.SeriesInstanceUID = UID(made.fresh_series)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    said = text_in(dataset, "SeriesDescription")
    if made.fresh_series != made.series or not said:
        kind = said or _KINDS.get(text_in(dataset, "Modality"), "result")
        dataset.SeriesDescription = shorten(f"{maker.display_name}: {kind}")
    if made.fresh_series != made.series or not text_in(dataset, "SeriesNumber"):
        dataset.SeriesNumber = (
            _FIRST_SERIES + int(hashlib.sha256(made.series.encode()).hexdigest()[:4], 16) % 999
        )
    for keyword, value in (
        ("Manufacturer", maker.manufacturer or maker.display_name),
        ("ManufacturerModelName", maker.display_name),
        ("SoftwareVersions", maker.version),
    ):
        if value and not text_in(dataset, keyword):
            setattr(dataset, keyword, shorten(value))


def _write(made: _Object, path: Path) -> None:
    import pydicom

    with path.open("wb") as file:
        pydicom.dcmwrite(file, made.dataset, enforce_file_format=True)
        if made.tail is not None:
            with made.path.open("rb") as rest:
                rest.seek(made.tail)
                shutil.copyfileobj(rest, file, 2**20)


def _make_room(dataset: Dataset, text: str) -> None:
    """For letters that the object's own character set may not have."""
    if not text.isascii() and text_in(dataset, "SpecificCharacterSet") != "ISO_IR 192":
        dataset.decode()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        _forget_character_sets(dataset)


def _forget_character_sets(dataset: Dataset) -> None:
    for sequence in _sequences(dataset):
        for item in sequence:
            if "SpecificCharacterSet" in item:
                del item.SpecificCharacterSet
            _forget_character_sets(item)


def _differs(this: str, other: str) -> bool:
    """Names, whatever their spelling: known on both sides, and not the same letters."""
    first, second = (
        "".join(letter for letter in name.split("=")[0].casefold() if letter.isalnum())
        for name in (this, other)
    )
    return bool(first and second) and first != second


@contextmanager
def _explained() -> Iterator[None]:
    """pydicom's own words quote values, so they aren't repeated."""
    try:
        yield
    except unreadable() as error:
        raise NeedsHuman(
            f"a result object of the vendor can't be written anew ({type(error).__name__})",
            "Ask the vendor whether it is valid DICOM; retry the job to have it collected again.",
        ) from None
    except OSError as error:
        raise Retryable(
            f"a result object can't be written: {error.strerror}", "Look at the disk below data_dir."
        ) from None
