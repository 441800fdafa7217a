"""Vendors' result objects as they leave: whose they are, where they belong, and not a pixel changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from gateway.contract import NeedsHuman
from gateway.delivery.objects import Leaving, Maker, Source, correct, reports_among
from gateway.simulate.milvue_results import make_capture, make_report
from gateway.simulate.samples import make_samples

FILES = make_samples()[1].files
MAKER = Maker("job-1", "Milvue trauma", "Milvue", "3.1")
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")

Change = Callable[[Dataset], None]


def headers() -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(data), stop_before_pixels=True) for data in FILES]


def source_of(change: Change = lambda header: None) -> Source:
    known = headers()
    change(known[0])
    return Source(
        known[0],
        {str(dataset.SOPInstanceUID): str(dataset.SOPClassUID) for dataset in known},
        {str(dataset.SeriesInstanceUID) for dataset in known},
    )


def vendors(folder: Path, *changes: Change) -> list[Path]:
    """A capture and a report as a vendor makes them, and what is wrong with them."""
    folder.mkdir(exist_ok=True)
    header = headers()[0]
    paths = []
    for number, data in enumerate((make_capture(header, FILES[0], "trauma"), make_report(header, "trauma"))):
        result = pydicom.dcmread(BytesIO(data))
        for change in changes:
            change(result)
        result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
        paths.append(folder / f"{number}.dcm")
        result.save_as(paths[-1], enforce_file_format=True)
    return paths


def read(leaving: tuple[Leaving, ...]) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(made.path) for made in leaving]


def complaints(path: Path) -> set[str]:
    """What a validator calls errors in it."""
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert found.stdout or found.stderr, "it said nothing at all"
    return {line for line in found.stderr.splitlines() if line.startswith("Error")}


def without(*keywords: str) -> Change:
    def change(dataset: Dataset) -> None:
        for keyword in keywords:
            if keyword in dataset:
                delattr(dataset, keyword)

    return change


def having(**values: object) -> Change:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def test_a_result_gets_the_studys_patient_and_a_name_of_its_maker(tmp_path: Path) -> None:
    paths = vendors(
        tmp_path / "in",
        without("PatientID", "PatientBirthDate", "SeriesDescription", "SeriesNumber", "Manufacturer"),
        having(PatientName="", AccessionNumber="X", SoftwareVersions="", StudyDescription="Other"),
    )
    for result, path in zip(read(correct(paths, tmp_path / "out", source_of(), MAKER)), paths, strict=True):
        came = pydicom.dcmread(path)
        for keyword in (*PATIENT, "StudyDescription", "ReferringPhysicianName", "StudyTime"):
            assert result[keyword].value == headers()[0][keyword].value, keyword
        assert (result.SOPInstanceUID, result.SeriesInstanceUID) == (
            came.SOPInstanceUID,
            came.SeriesInstanceUID,
        )
        kind = "report" if result.Modality == "SR" else "result"
        assert result.SeriesDescription == f"Milvue trauma: {kind}"
        assert (result.Manufacturer, result.SoftwareVersions) == ("Milvue", "3.1")
        assert result.ManufacturerModelName == "trauma", "what the vendor says of itself stays"
        assert result.SeriesNumber > 1
        assert complaints(tmp_path / "out" / f"object-000{paths.index(path)}.dcm") == set()


def test_a_good_result_leaves_as_it_came(tmp_path: Path) -> None:
    paths = vendors(tmp_path / "in")
    for result, path in zip(read(correct(paths, tmp_path / "out", source_of(), MAKER)), paths, strict=True):
        came = pydicom.dcmread(path)
        came.SoftwareVersions = "3.1"
        assert result == came


@pytest.mark.parametrize(
    "change",
    [
        having(PatientID="SOMEBODY"),
        having(PatientID="", PatientName="Somebody^Else"),
        having(StudyInstanceUID="1.2.3"),
    ],
)
def test_a_result_for_somebody_else_never_leaves(tmp_path: Path, change: Change) -> None:
    paths = vendors(tmp_path / "in", change)
    with pytest.raises(NeedsHuman, match="another") as caught:
        correct(paths, tmp_path / "out", source_of(), MAKER)
    assert "omebody" not in f"{caught.value} {caught.value.advice} {caught.value.detail}".lower()
    assert not list((tmp_path / "out").iterdir())


def test_a_name_spelled_otherwise_is_the_same_patient(tmp_path: Path) -> None:
    paths = vendors(tmp_path / "in", having(PatientID="", PatientName="SYNTHETIC KARL"))
    assert [
        str(result.PatientName) for result in read(correct(paths, tmp_path / "out", source_of(), MAKER))
    ] == [*("Synthetic^Karl", "Synthetic^Karl")]


def test_names_in_other_letters_take_the_rest_of_the_header_with_them(tmp_path: Path) -> None:
    source = source_of(having(PatientName="Иванов^Иван=伊万^诺夫", SpecificCharacterSet="ISO_IR 192"))
    latin = having(SpecificCharacterSet="ISO_IR 100", SeriesDescription="Détail", PatientName="")
    for made in correct(vendors(tmp_path / "in", latin), tmp_path / "out", source, MAKER):
        result = pydicom.dcmread(made.path)
        assert str(result.PatientName) == "Иванов^Иван=伊万^诺夫"
        assert result.SeriesDescription == "Détail"
        assert complaints(made.path) == set()


def test_uids_of_the_source_are_not_taken_twice_and_references_follow(tmp_path: Path) -> None:
    """The worst vendor: results in the source's series, under its UIDs, referring to it and to each other."""
    source = source_of()
    images = headers()
    paths = vendors(tmp_path / "in")
    capture, report = (pydicom.dcmread(path) for path in paths)
    capture.SOPInstanceUID = capture.file_meta.MediaStorageSOPInstanceUID = images[0].SOPInstanceUID
    for result in (capture, report):
        result.SeriesInstanceUID = images[0].SeriesInstanceUID
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    both = Dataset()
    both.ReferencedSOPClassUID, both.ReferencedSOPInstanceUID = capture.SOPClassUID, capture.SOPInstanceUID
    evidence.ReferencedSOPSequence.append(both)
    for result, path in ((capture, paths[0]), (report, paths[1])):
        result.save_as(path)

    leaving = correct(paths, tmp_path / "out", source, MAKER)
    capture, report = read(leaving)
    assert capture.SOPInstanceUID == capture.file_meta.MediaStorageSOPInstanceUID == leaving[0].leaves_as
    assert capture.SOPInstanceUID not in source.instances
    assert report.SOPInstanceUID == leaving[1].came_as
    assert capture.SeriesInstanceUID == report.SeriesInstanceUID
    assert capture.SeriesInstanceUID not in source.series
    assert capture.SeriesDescription == "Milvue trauma: Milvue trauma"
    first, second = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert first.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert [reference.ReferencedSOPInstanceUID for reference in first.ReferencedSOPSequence] == [
        images[0].SOPInstanceUID
    ]
    assert second.SeriesInstanceUID == capture.SeriesInstanceUID
    assert [reference.ReferencedSOPInstanceUID for reference in second.ReferencedSOPSequence] == [
        capture.SOPInstanceUID
    ]
    assert complaints(leaving[1].path) == set()

    again = correct(paths, tmp_path / "again", source, MAKER)
    assert [made.path.read_bytes() for made in again] == [made.path.read_bytes() for made in leaving]
    other = correct(paths, tmp_path / "other", source, Maker("job-2", "Milvue trauma"))
    assert other[0].leaves_as != leaving[0].leaves_as


def test_a_uid_that_holds_something_else_already_is_left_to_it(tmp_path: Path) -> None:
    paths = vendors(tmp_path / "in")
    uids = {
        tuple(made.leaves_as for made in correct(paths, tmp_path / "out", source_of(), MAKER, taken))
        for taken in ({}, *({str(pydicom.dcmread(paths[0]).SOPInstanceUID): times} for times in (1, 2)))
    }
    assert len({first for first, _ in uids}) == 3
    assert len({second for _, second in uids}) == 1
    twins = correct([paths[0], paths[0]], tmp_path / "out", source_of(), MAKER)
    assert twins[0].leaves_as != twins[1].leaves_as


def test_a_report_made_anew_names_the_one_that_it_takes_the_place_of(tmp_path: Path) -> None:
    paths = vendors(tmp_path / "in")
    capture, report = (pydicom.dcmread(path) for path in paths)
    assert reports_among(paths) == [report.SOPInstanceUID]
    uid = str(report.SOPInstanceUID)
    second = Maker("job-2", "Milvue trauma", run=2)
    before = {uid: uid}
    same = correct(paths, tmp_path / "same", source_of(), second, {}, before)
    assert "PredecessorDocumentsSequence" not in pydicom.dcmread(same[1].path), "it is that very one"
    leaving = correct(paths, tmp_path / "out", source_of(), second, {uid: 1}, before)
    made = pydicom.dcmread(leaving[1].path)
    assert (made.SeriesInstanceUID, made.InstanceNumber) == (report.SeriesInstanceUID, 2)
    [series] = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uid != made.SOPInstanceUID
    assert complaints(leaving[1].path) == set()
    assert pydicom.dcmread(leaving[0].path).SOPInstanceUID == capture.SOPInstanceUID


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless]
)
def test_pixels_keep_their_bytes_and_their_transfer_syntax(tmp_path: Path, syntax: UID) -> None:
    path = vendors(tmp_path / "in", having(PatientID=""))[0]
    result = pydicom.dcmread(path)
    if syntax == JPEG2000Lossless:
        result.PixelData = pydicom.encaps.encapsulate([b"not decoded by anybody " * 50])
        result["PixelData"].is_undefined_length = True
    came = result.PixelData
    result.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        result["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, result, enforce_file_format=True)
    [leaving] = correct([path], tmp_path / "out", source_of(), MAKER)
    left = pydicom.dcmread(leaving.path)
    assert left.file_meta.TransferSyntaxUID == syntax
    assert left.PixelData == came
    assert left.PatientID == "SIM-1002"


def test_an_object_not_encoded_as_it_says_is_put_right(tmp_path: Path) -> None:
    path = vendors(tmp_path / "in")[0]
    result = pydicom.dcmread(path)
    result.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, result)
    wrong = path.read_bytes().replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0", 1)
    at = wrong.index(b"\x02\0\x10\0UI") + 6
    wrong = wrong[:at] + (20).to_bytes(2, "little") + wrong[at + 2 :]
    length = wrong.index(b"\x02\0\0\0UL") + 8
    declared = int.from_bytes(wrong[length : length + 4], "little") + 2
    path.write_bytes(wrong[:length] + declared.to_bytes(4, "little") + wrong[length + 4 :])
    [leaving] = correct([path], tmp_path / "out", source_of(), MAKER)
    left = pydicom.dcmread(leaving.path)
    assert left.is_implicit_VR is False
    assert left.PixelData == result.PixelData


def test_a_large_object_is_never_in_memory(tmp_path: Path) -> None:
    """400 MB of pixels through a process that may have 300 MB more than it starts with."""
    path = vendors(tmp_path / "in")[0]
    result = pydicom.dcmread(path)
    del result.PixelData
    pydicom.dcmwrite(path, result, enforce_file_format=True)
    pixels = 400 * 2**20
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\0OW\0\0" + pixels.to_bytes(4, "little"))
        file.truncate(file.tell() + pixels)
    pydicom.dcmwrite(tmp_path / "header.dcm", headers()[0], enforce_file_format=True)
    program = (
        "import resource, sys, pydicom; from pathlib import Path;"
        "from gateway.delivery.objects import *;"
        "header = pydicom.dcmread(sys.argv[2], stop_before_pixels=True);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "correct([Path(sys.argv[1])], Path(sys.argv[3]), Source(header, {}, set()), Maker('j', 'd'));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "header.dcm"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) < 50 * 1024
    assert (tmp_path / "out" / "object-0000.dcm").stat().st_size > pixels
    shutil.rmtree(tmp_path / "out")
    path.unlink()


def test_what_cannot_be_read_needs_a_person_and_quotes_nothing(tmp_path: Path) -> None:
    path = vendors(tmp_path / "in")[1]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"IS\x04\x009001", b"FD\x04\x00KARL", 1))
    with pytest.raises(NeedsHuman, match="can't be written anew") as caught:
        correct([path], tmp_path / "out", source_of(), MAKER)
    assert "KARL" not in str(caught.value)


def test_a_uid_is_one(tmp_path: Path) -> None:
    made = {MAKER.make_uid("object", generate_uid()) for _ in range(200)}
    assert len(made) == 200
    assert all(pydicom.uid.UID(uid).is_valid for uid in made)
