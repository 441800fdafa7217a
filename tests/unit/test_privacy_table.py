"""Our table of what identifies somebody, against the standard's and two that others have made."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from grand_challenge_dicom_de_id_procedure import procedure as grand_challenge
from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]

from gateway.privacy.profile import PSEUDONYMS, Act, Rules
from gateway.privacy.table import GONE, read_table, row_of
from gateway.settings.sections import Profile

STANDARD = json.loads(Path(__file__).with_name("ps3.15-table-e1-1.json").read_text())
COLUMNS = {
    "cleanDescOpt": "descriptors",
    "cleanGraphOpt": "graphics",
    "cleanStructContOpt": "structured",
    "rtnDevIdOpt": "device",
    "rtnInstIdOpt": "institution",
    "rtnLongModifDatesOpt": "dates",
    "rtnPatCharsOpt": "patient",
    "rtnUIDsOpt": "uids",
}
# What the standard has added since: no public copy of the table has these rows' options, so only that of
# dates and of UIDs is ours to tell.
SINCE_2024B = {
    *range(0x00081301, 0x00081305),
    *range(0x00100011, 0x00100017),
    *range(0x00100041, 0x00100048),
    *(0x00102161, 0x00102162, 0x00181010, 0x00181011, 0x003A0020, 0x003A0203, 0x003A020C, 0x00400556),
    *(0x0040A034, 0x0040A035, 0x0040B020, 0x0040B034, 0x0040B036, 0x0040B03B, 0x0040B03F, 0x0040E012),
    *(0x00700006, 0x300A0054),
}
STRENGTH = {"K": 0, "C": 1, "U": 2, "D": 3, "Z": 4, "X": 5}


def tag_of(written: str) -> int:
    return int(written.strip("()").replace(",", ""), 16)


def test_every_row_of_the_standard_is_ours_and_no_option_is_missing():
    families = []
    for row in STANDARD:
        if not row["id"].isalnum() or "x" in row["id"]:
            families.append(row["id"])
            continue
        ours = read_table()[int(row["id"], 16)]
        assert ours.basic == row["basicProfile"], row["name"]
        assert dict(ours.options) == {ours: row[key] for key, ours in COLUMNS.items() if key in row}, row
        if "rtnLongFullDatesOpt" in row:  # always with the other of dates, and always kept
            assert (row["rtnLongFullDatesOpt"], ours.options["dates"]) == ("K", "C")
    assert families == ["50xxxxxx", "60xx4000", "60xx3000", "ggggeeee-where-gggg-is-odd"]


@pytest.mark.parametrize("tag", [0x50000010, 0x501E3000, 0x60003000, 0x60024000, 0x60000010])
def test_curves_and_overlays_go_whole(tag):
    """The standard removes an overlay's pixels and comments alone, which leaves its rows without either."""
    assert row_of(tag).basic == GONE.basic


def test_nothing_else_of_ours_is_milder_than_the_standard():
    """What we list besides is never kept, and what no table lists is not because it is of a telling kind."""
    theirs = {int(row["id"], 16) for row in STANDARD if row["id"].isalnum() and "x" not in row["id"]}
    ours = read_table().keys() - theirs - SINCE_2024B
    for tag in ours - {0x50000000, 0x60003000, 0x60004000}:
        assert row_of(tag).basic in ("X", "Z", "D"), hex(tag)
        assert DicomDictionary[tag][4] == row_of(tag).keyword
    unlisted = [tag for tag in DicomDictionary if tag not in read_table()]
    for tag in unlisted:
        if DicomDictionary[tag][0] in ("PN", "DA", "DT", "AE"):
            assert row_of(tag).basic != "K", hex(tag)
    assert row_of(0x00099999) == row_of(0x4FFE0010) == GONE  # in nobody's dictionary


def test_dicom_anonymizer_agrees_in_every_row():
    theirs = importlib.import_module("dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c")
    kinds = ["D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D", "X_Z_U_STAR"]
    families, seen = [], set()
    for kind in kinds:
        for written in getattr(theirs, f"{kind}_TAGS"):
            if len(written) == 4:  # a mask: curves, overlays
                families.append(written[0])
                continue
            tag = (written[0] << 16) | written[1]
            seen.add(tag)
            assert read_table()[tag].basic == kind.replace("_STAR", "*").replace("_", "/"), hex(tag)
    assert sorted(families) == [0x5000, 0x6000, 0x6000]
    listed = {int(row["id"], 16) for row in STANDARD if row["id"].isalnum() and "x" not in row["id"]}
    assert seen == listed | SINCE_2024B


# Where they are stricter than we: for images of three kinds alone, of which they know what is needed.
THEIR_OWN = {
    "[AUTO] Module usage": "what their analysis doesn't need goes, whoever it is about",
    "[AUTO] Attribute-Module type": "what their analysis doesn't need goes, whoever it is about",
}
EXPLAINED = {
    0x00100035: "of an alternative calendar: we remove it, with the dates that it is about",
    0x00080053: "how a query was viewed: tells of no patient",
    0x00080120: "a code written as a URN: what it means is no secret",
    0x0008010D: "who extended a group of codes: a maker or society, as a coding scheme's UID is",
    0x00081090: "the model of a scanner: kept by the standard, and vendors can't work without it",
    0x00181020: "versions of a scanner's programs: kept by the standard, and vendors judge images by them",
    0x00180084: "the frequency and nucleus of a magnet: of the physics alone",
    0x00180087: "the strength of a magnet: of the physics alone",
    0x00200012: "which number a scan has in its study: tells of no patient",
    0x00209172: "which objects one was converted from: gone into, with other UIDs",
    0x00209238: "whose private attribute a frame's number points at: a maker's name",
    0x0040A390: "which reports of HL7 are meant: gone into, with a dummy for each",
    0x00400620: "where a specimen was taken: gone into as any content is",
    0x0008114A: "which objects are meant: gone into, with other UIDs",
    0x00081200: "which other studies are meant: gone into, with other UIDs",
    0x00089215: "how an image was derived, and from which: gone into, with other UIDs",
    0x00102298: "what the person responsible for an animal is to it; the name itself we remove",
    0x00287FE0: "pixels that lie elsewhere: we remove the url as they do",
    0x0008002A: "a date and time that one kind of object has to have: a dummy, valid in all",
    0x00080033: "a time that one kind of object has to have: a dummy, valid in all",
}


def test_grand_challenge_is_nowhere_stricter_without_a_reason():
    """Where theirs removes what the table lets be empty or a dummy, an object of another kind than their
    three would be invalid without it."""
    rules = Rules(Profile())
    unexplained = {}
    for kind in grand_challenge["sopClass"].values():
        for written, told in kind["tag"].items():
            if told is None or told["justification"] in THEIR_OWN:
                continue
            tag, theirs = tag_of(written), told["default"]
            act, basic = rules.act_on(tag), row_of(tag).basic
            if act is Act.PSEUDONYM:
                assert tag in PSEUDONYMS and basic != "X"
                continue
            ours = {Act.REMOVE: "X", Act.EMPTY: "Z", Act.DUMMY: "D", Act.UID: "U", Act.KEEP: "K"}[act]
            allowed = theirs in basic.split("/") or (theirs == "X" and "X" in basic)
            if STRENGTH[ours] < STRENGTH[theirs] and not allowed and tag not in EXPLAINED:
                unexplained[written] = (told["justification"], theirs, ours)
    assert not unexplained, unexplained


def acts(*options: str) -> Rules:
    return Rules(Profile.model_validate({"options": list(options)}))


@pytest.mark.parametrize(
    ("tag", "options", "act"),
    [
        (0x00080020, (), Act.EMPTY),  # StudyDate
        (0x00080020, ("retain-longitudinal-full-dates",), Act.KEEP),
        (0x00080020, ("retain-longitudinal-modified-dates",), Act.SHIFT),
        (0x00100030, ("retain-longitudinal-full-dates",), Act.EMPTY),  # PatientBirthDate
        (0x00101010, ("retain-patient-characteristics",), Act.KEEP),  # PatientAge
        (0x00181000, ("retain-device",), Act.KEEP),  # DeviceSerialNumber
        (0x00080055, ("retain-device",), Act.CLEAN),  # StationAETitle
        (0x00080080, ("retain-institution",), Act.KEEP),  # InstitutionName
        (0x0008103E, ("clean-descriptors",), Act.CLEAN),  # SeriesDescription
        (0x0008103E, (), Act.REMOVE),
        (0x0040A730, (), Act.DUMMY),  # ContentSequence
        (0x0040A730, ("clean-structured-content",), Act.CLEAN),
        (0x00100010, ("retain-patient-characteristics",), Act.PSEUDONYM),
        (0x00080050, (), Act.PSEUDONYM),  # AccessionNumber
        (0x0020000D, (), Act.UID),
        (0x00080016, (), Act.KEEP),  # SOPClassUID
    ],
)
def test_what_becomes_of_an_attribute(tag, options, act):
    assert acts(*options).act_on(tag) is act


def test_private_attributes_stay_where_they_are_listed():
    rules = Rules(
        Profile.model_validate(
            {"options": ["retain-safe-private"], "keep_private": ['(0019,"SIEMENS MR HEADER",0C)']}
        )
    )
    assert rules.keeps(0x0019, "SIEMENS MR HEADER", 0x100C)
    assert rules.keeps(0x0019, "SIEMENS MR HEADER", 0x110C)
    assert not rules.keeps(0x0019, "SIEMENS MR HEADER", 0x100D)
    assert not rules.keeps(0x0021, "SIEMENS MR HEADER", 0x100C)
    assert not rules.keeps(0x0019, "ANOTHER", 0x100C)
