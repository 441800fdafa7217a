"""What a DICOMweb archive tells about its instances, as DICOM JSON."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from gateway.simulate.part10 import Instance

Level = Literal["study", "series", "instance"]
STUDY = (
    *(
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
        "PatientName",
    ),
    *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
)
SERIES = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
INSTANCE = (
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber"),
    *("Rows", "Columns", "BitsAllocated", "NumberOfFrames"),
)
UNIQUE = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


class WrongQuery(ValueError):
    """The query has a key or a value that the archive doesn't understand."""


class Told(NamedTuple):
    url: str
    availability: str | None
    promise_more: int
    odd: bool


def _name_key(key: str) -> str:
    keyword = key if tag_for_keyword(key) is not None else ""
    if not keyword and len(key) == 8:
        try:
            keyword = keyword_for_tag(int(key, 16))
        except ValueError:
            keyword = ""
    if not keyword:
        raise WrongQuery(f"The archive doesn't know the query key {key!r}.")
    return keyword


def _matches(value: Any, pattern: str, keyword: str) -> bool:
    values = [str(each) for each in value] if isinstance(value, MultiValue | list) else [str(value)]
    if keyword.endswith("UID"):
        return any(each in pattern.replace("\\", ",").split(",") for each in values)
    if keyword.endswith("Date") and "-" in pattern:
        first, last = pattern.split("-", 1)
        return any((first or "0") <= each <= (last or "9") for each in values)
    if keyword.endswith("Name"):
        values, pattern = [each.lower() for each in values], pattern.lower()
    return any(fnmatch.fnmatchcase(each, pattern) for each in values)


def _describe(group: Sequence[Instance], level: Level, told: Told) -> Dataset:
    header, found = group[0].header, Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    wanted = {"study": STUDY, "series": SERIES, "instance": (*INSTANCE, *SERIES)}
    for keyword in wanted[level]:
        if level == "study" or keyword in header:
            setattr(found, keyword, header.get(keyword))
    found.StudyInstanceUID = UID(group[0].study)
    if told.availability is not None:
        found.InstanceAvailability = told.availability
    found.RetrieveURL = f"{told.url}/studies/{group[0].study}"
    if level == "study":
        found.ModalitiesInStudy = sorted({str(each.header.Modality) for each in group})
        found.NumberOfStudyRelatedSeries = len({each.series for each in group})
        found.NumberOfStudyRelatedInstances = len(group) + told.promise_more
        return found
    found.RetrieveURL += f"/series/{group[0].series}"
    if level == "series":
        found.NumberOfSeriesRelatedInstances = len(group)
        return found
    found.RetrieveURL += f"/instances/{group[0].sop}"
    found.AvailableTransferSyntaxUID = UID(group[0].syntax)
    return found


def _make_odd(found: dict[str, Any]) -> None:
    """A value may be missing, empty or null; archives were seen to answer each of these."""
    for tag, element in (
        ("00200010", {"vr": "SH", "Value": [None]}),
        ("00080090", {"vr": "PN"}),
        ("00080056", {"vr": "CS", "Value": []}),
        ("00081030", {"vr": "LO", "Value": None}),
    ):
        if tag in found:
            found[tag] = element


def answer(
    instances: Sequence[Instance], level: Level, query: Iterable[tuple[str, str]], told: Told
) -> list[dict[str, Any]]:
    filters: dict[str, str] = {}
    extra: list[str] = []
    everything, offset, limit = False, 0, len(instances)
    for key, value in query:
        if key == "includefield":
            names = [name for name in value.split(",") if name]
            everything = everything or "all" in names
            extra += [_name_key(name) for name in names if name != "all"]
        elif key in ("limit", "offset"):
            if not value.isdecimal():
                raise WrongQuery(f"{key} has to be a number.")
            offset, limit = (int(value), limit) if key == "offset" else (offset, int(value))
        elif key != "fuzzymatching":
            filters[_name_key(key)] = value
    groups: dict[str, list[Instance]] = {}
    for each in instances:
        groups.setdefault(str(each.header[UNIQUE[level]].value), []).append(each)
    found = []
    for group in groups.values():
        dataset, header = _describe(group, level, told), group[0].header
        if not all(
            _matches(dataset.get(keyword, header.get(keyword, "")), pattern, keyword)
            for keyword, pattern in filters.items()
            if pattern
        ):
            continue
        for keyword in [each.keyword for each in header] if everything else extra:
            if keyword and keyword not in dataset and keyword in header:
                setattr(dataset, keyword, header.get(keyword))
        found.append(dataset.to_json_dict())
        if told.odd:
            _make_odd(found[-1])
    return found[offset : offset + limit]


def describe_header(instance: Instance) -> dict[str, Any]:
    described: dict[str, Any] = instance.header.to_json_dict()
    return described


def describe_storage(
    url: str, done: Iterable[Instance], failed: Iterable[tuple[Instance, int]]
) -> dict[str, Any]:
    """Both sequences are always there, empty ones too, as a real archive answers."""
    result = Dataset()
    result.ReferencedSOPSequence, result.FailedSOPSequence = Items([]), Items([])
    for instance in done:
        item = Dataset()
        item.ReferencedSOPClassUID = UID(instance.sop_class)
        item.ReferencedSOPInstanceUID = UID(instance.sop)
        item.RetrieveURL = f"{url}/studies/{instance.study}/series/{instance.series}/instances/{instance.sop}"
        result.RetrieveURL = f"{url}/studies/{instance.study}"
        result.ReferencedSOPSequence.append(item)
    for instance, reason in failed:
        item = Dataset()
        item.ReferencedSOPClassUID = UID(instance.sop_class)
        item.ReferencedSOPInstanceUID = UID(instance.sop)
        item.FailureReason = reason
        result.FailedSOPSequence.append(item)
    described: dict[str, Any] = result.to_json_dict()
    return described
