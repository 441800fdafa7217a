"""A report made of findings, row by row against the templates of PS3.16 that IHE's AI Results builds on: TID
1500 with 1001, 1600 to 1602, 1410, 1501, 1419 and 4019. Who reads it here shares no code with its writer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR, MeasurementReport
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from gateway.contract import Finding, Finished
from tests.rooms.test_findings_objects import SAMPLES, make
from tests.rooms.test_result_objects import complaints

# Concept name, value type, relationship to its parent, how often there.
Row = tuple[str, str, str, range]
ONCE, MAYBE, SOME = range(1, 2), range(2), range(1, 10_000)
ROOT: tuple[Row, ...] = (
    ("121005", "CODE", "HAS OBS CONTEXT", ONCE),  # TID 1002: observer type
    ("121012", "UIDREF", "HAS OBS CONTEXT", ONCE),  # TID 1004: who it was, as a device
    ("121013", "TEXT", "HAS OBS CONTEXT", ONCE),
    ("121014", "TEXT", "HAS OBS CONTEXT", MAYBE),
    ("121015", "TEXT", "HAS OBS CONTEXT", ONCE),
    ("121058", "CODE", "HAS CONCEPT MOD", ONCE),  # row 4: procedure reported
    ("111028", "CONTAINER", "CONTAINS", ONCE),  # row 5: image library, TID 1600
    ("126010", "CONTAINER", "CONTAINS", ONCE),  # row 6: imaging measurements
    ("121106", "TEXT", "CONTAINS", MAYBE),  # the vendor's summary
)
LIBRARY: tuple[Row, ...] = (("126200", "CONTAINER", "CONTAINS", SOME),)
LIBRARY_GROUP: tuple[Row, ...] = (("260753009", "IMAGE", "CONTAINS", SOME),)
LIBRARY_ENTRY: tuple[Row, ...] = (
    ("121139", "CODE", "HAS ACQ CONTEXT", ONCE),
    ("112227", "UIDREF", "HAS ACQ CONTEXT", MAYBE),
    ("110910", "NUM", "HAS ACQ CONTEXT", ONCE),
    ("110911", "NUM", "HAS ACQ CONTEXT", ONCE),
)
GROUP: tuple[Row, ...] = (
    ("112039", "TEXT", "HAS OBS CONTEXT", ONCE),  # TID 1410 row 2, 1501 row 3: tracking identifier
    ("112040", "UIDREF", "HAS OBS CONTEXT", ONCE),
    ("121071", "CODE", "CONTAINS", ONCE),  # what was found
    ("111001", "TEXT", "HAS CONCEPT MOD", ONCE),  # TID 4019: by which algorithm
    ("111003", "TEXT", "HAS CONCEPT MOD", ONCE),
    ("122405", "TEXT", "HAS CONCEPT MOD", MAYBE),
    ("121106", "TEXT", "CONTAINS", MAYBE),
)
PLACES: tuple[Row, ...] = (
    ("111030", "SCOORD", "CONTAINS", MAYBE),  # TID 1410: the region
    ("121112", "IMAGE", "CONTAINS", MAYBE),  # TID 1501: the image, where there is no region
)


def name_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def children(item: Dataset) -> list[Dataset]:
    return list(item.get("ContentSequence") or [])


def kinds_of(item: Dataset) -> list[tuple[str, str]]:
    return [(name_of(each), str(each.ValueType)) for each in children(item)]


def check_rows(item: Dataset, rows: tuple[Row, ...]) -> None:
    for value, kind, relation, times in rows:
        found = [each for each in children(item) if name_of(each) == value and each.ValueType == kind]
        assert len(found) in times, (value, len(found))
        assert {each.RelationshipType for each in found} <= {relation}, value


def check(item: Dataset, rows: tuple[Row, ...]) -> None:
    """Nothing else, and in the order of the rows."""
    check_rows(item, rows)
    told = [each[:2] for each in rows]
    order = [told.index(each) for each in kinds_of(item)]
    assert order == sorted(order)


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for each in children(item):
        yield from walk(each)


async def make_report(folder: Path, number: int) -> tuple[Path, list[str]]:
    files = SAMPLES[number].files
    first = str(pydicom.dcmread(BytesIO(files[0]), stop_before_pixels=True).SOPInstanceUID)
    frame = 2 if number == 3 else None
    seen = (
        Finding("Fracture", "box", ((10, 12), (20, 50)), first, 0.9, frame=frame),
        Finding("Cell", "point", ((30, 30),), first, frame=frame),
        Finding("axis", "polyline", ((1, 1), (20, 30)), first, measure="12.5 mm", frame=frame),
        Finding("Effusion", "none", (), first, 0.7),
        Finding("Nowhere", "none"),
    )
    made = await make(folder, files, Finished("abnormal", findings=seen))
    uids = [pydicom.dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID for data in files]
    return made.files[0], [str(uid) for uid in uids]


@pytest.mark.parametrize("number", range(4))
async def test_each_row_is_there_once_in_its_order_and_by_its_relation(tmp_path: Path, number: int) -> None:
    path, images = await make_report(tmp_path, number)
    report = pydicom.dcmread(path)
    assert report.SOPClassUID == Comprehensive3DSRStorage, "what AI Results asks for"
    assert (report.Modality, report.CompletionFlag, report.VerificationFlag) == (
        "SR",
        "COMPLETE",
        "UNVERIFIED",
    )
    template = report.ContentTemplateSequence[0]
    assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "1500")
    assert name_of(report) == "126000" and report.ValueType == "CONTAINER"
    check(report, ROOT)
    by_name = {name_of(each): each for each in children(report)}
    assert by_name["121005"].ConceptCodeSequence[0].CodeValue == "121007", "a device, no person"

    check(by_name["111028"], LIBRARY)
    [library] = children(by_name["111028"])
    check(library, LIBRARY_GROUP)
    named = [each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for each in children(library)]
    assert named == images, "all that was fetched for it"
    for entry in children(library):
        check(entry, LIBRARY_ENTRY)

    groups = children(by_name["126010"])
    assert len(groups) == 5 and {name_of(each) for each in groups} == {"125007"}
    for group in groups:
        check_group(group)
    identifiers = {str(item.UID) for group in groups for item in children(group) if name_of(item) == "112040"}
    assert len(identifiers) == 5, "each finding is tracked by a UID of its own"


def check_group(group: Dataset) -> None:
    measured = [each for each in children(group) if each.ValueType == "NUM"]
    regions = [each for each in children(group) if each.ValueType == "SCOORD"]
    template = group.ContentTemplateSequence[0]
    assert template.TemplateIdentifier == ("1410" if regions else "1501")
    check_rows(group, (*GROUP, *PLACES))
    rows = {row[:2] for row in (*GROUP, *PLACES)}
    assert {kind for name, kind in kinds_of(group) if (name, kind) not in rows} <= {"NUM"}
    for number in measured:  # TID 1419
        assert number.RelationshipType == "CONTAINS"
        [value] = number.MeasuredValueSequence
        assert (
            value.NumericValue is not None
            and value.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
        )
    for region in regions:
        [source] = children(region)
        assert (source.ValueType, source.RelationshipType) == ("IMAGE", "SELECTED FROM")


@pytest.mark.parametrize("number", range(4))
async def test_all_that_a_report_names_is_its_evidence(tmp_path: Path, number: int) -> None:
    path, _ = await make_report(tmp_path, number)
    report = pydicom.dcmread(path)
    evidence = {
        str(each.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    named = {
        str(each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for each in walk(report)
        if each.get("ValueType") == "IMAGE"
    }
    assert named and named <= evidence


@pytest.mark.parametrize("number", range(4))
async def test_other_software_reads_and_prints_it(tmp_path: Path, number: int) -> None:
    path, _ = await make_report(tmp_path, number)
    assert complaints(path) == set()
    content = Comprehensive3DSR.from_dataset(pydicom.dcmread(path)).content
    assert isinstance(content, MeasurementReport)
    assert len(content.get_planar_roi_measurement_groups()) == 3
    assert len(content.get_image_measurement_groups()) == 2
    assert content.get_observer_contexts()[0].observer_identifying_attributes.name == "Milvue trauma"
    printed = subprocess.run(["dsrdump", "+U8", path], capture_output=True, text=True, check=True)
    assert not re.search("^[EF]:", printed.stderr, re.M)
    assert "Algorithm Name" in printed.stdout and "Fracture" in printed.stdout
