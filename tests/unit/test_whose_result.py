"""A result belongs to the study, order and patient that was asked about, by all that it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from gateway.contract import Finished, NeedsHuman, Retryable
from gateway.dicom.identity import Identity, identity_of
from gateway.work.results import Judged, check_study
from gateway.work.results import judge as results_judged
from tests.peers.dicom_samples import encode, make_study

IMAGES = {"1.2.840.1.1", "1.2.840.1.2"}


def referring(study: str, *images: str) -> Dataset:
    """An item of evidence."""
    evidence, series = Dataset(), Dataset()
    evidence.StudyInstanceUID, series.SeriesInstanceUID = study, generate_uid()
    series.ReferencedSOPSequence = [image_of(image) for image in images]
    evidence.ReferencedSeriesSequence = [series]
    return evidence


def image_of(uid: str) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", uid
    return image


def asked_and_got(folder: Path, *results: Dataset, **asked: str) -> tuple[Finished, Identity]:
    paths = []
    for number, result in enumerate(results):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(encode(result))
    known = identity_of(results[0])
    side = {"study_instance_uid": known.study_instance_uid, "patient_id": known.patient_id, **asked}
    return Finished("seen", dicom=tuple(paths)), Identity(**side)


def judge(folder: Path, *results: Dataset, **asked: str) -> None:
    check_study(*asked_and_got(folder, *results, **asked), IMAGES)


def collect(folder: Path, *results: Dataset) -> Judged:
    return results_judged(*asked_and_got(folder, *results), dict.fromkeys(IMAGES), images_known=True)


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("PatientID", "SOMEBODY-ELSE", "another patient id"),
        ("AccessionNumber", "NOT-OURS", "another accession number"),
        ("StudyID", "NOT-OURS", "another exam id"),
        ("StudyInstanceUID", "1.2.3.4", "another study"),
    ],
)
def test_a_result_that_is_somebody_elses_by_any_name_is_held(
    tmp_path: Path, keyword: str, value: str, named: str
) -> None:
    [result] = make_study(1)
    asked = {
        "study_instance_uid": str(result.StudyInstanceUID),
        "patient_id": str(result.PatientID),
        "accession_number": "OURS",
        "study_id": "OURS",
    }
    result.AccessionNumber = result.StudyID = "OURS"
    judge(tmp_path, result, **asked)
    setattr(result, keyword, value)
    with pytest.raises(NeedsHuman, match=named):
        judge(tmp_path, result, **asked)


@pytest.mark.parametrize(
    ("evidence", "images", "theirs"),
    [
        ([], [], False),
        (["own"], ["1.2.840.1.1"], False),
        ([], ["1.2.840.1.2"], False),
        (["own", "2.25.7"], ["1.2.840.1.1", "2.25.8"], False),
        (["2.25.7"], [], True),
        (["2.25.7"], ["2.25.8"], True),
        ([], ["2.25.8", "2.25.9"], True),
    ],
    ids=["nothing", "ours", "our-image", "a-prior-too", "other-study", "other-image", "only-images"],
)
def test_a_result_that_refers_to_another_study_alone_is_held(
    tmp_path: Path, evidence: list[str], images: list[str], theirs: bool
) -> None:
    [result] = make_study(1)
    own = str(result.StudyInstanceUID)
    if evidence:
        result.CurrentRequestedProcedureEvidenceSequence = [
            referring(own if study == "own" else study, *images) for study in evidence
        ]
    elif images:
        result.ReferencedImageSequence = [image_of(image) for image in images]
    if not theirs:
        judge(tmp_path, result)
        return
    with pytest.raises(NeedsHuman, match="refers to another study alone"):
        judge(tmp_path, result)


def test_a_result_may_refer_to_the_others_of_its_delivery(tmp_path: Path) -> None:
    picture, state = make_study(2)
    state.ReferencedImageSequence = [image_of(str(picture.SOPInstanceUID))]
    judge(tmp_path, picture, state)


def test_a_report_that_cant_be_read_hides_nobody_elses_behind_it(tmp_path: Path) -> None:
    report, other = make_study(2)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.33")
    area = Dataset()
    area.ValueType, area.GraphicType = "SCOORD", "POINT"
    area.add_new("GraphicData", "OB", b"no number")
    area.ContentSequence = [Dataset()]
    area.ContentSequence[0].ReferencedSOPSequence = [Dataset()]
    report.ContentSequence = [area]
    with pytest.raises(Retryable, match="a report that can't be read"):
        collect(tmp_path, report)
    other.PatientID = "SOMEBODY-ELSE"
    with pytest.raises(NeedsHuman, match="somebody else"):
        collect(tmp_path, report, other)


def test_the_first_object_that_names_its_algorithm_tells_the_version(tmp_path: Path) -> None:
    first, second = make_study(2)
    first.SoftwareVersions = "made with 1"
    name, item = Dataset(), Dataset()
    name.CodeValue = "111003"
    item.ConceptNameCodeSequence, item.TextValue = [name], "algorithm 2"
    assert collect(tmp_path, first, second).version == "made with 1"
    second.ContentSequence = [item]
    assert collect(tmp_path, first, second).version == "algorithm 2"
