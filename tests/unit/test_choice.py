"""Which instances go to a vendor, and how a wrong rule is told."""

from __future__ import annotations

import re

import pytest

from gateway.archives.archive import InstanceRef
from gateway.archives.choice import choose_instances, made_by
from gateway.settings.load import load
from gateway.settings.rules import TagRule
from gateway.settings.sections import Choose
from gateway.settings.tree import Misconfigured

DX, SC, SR = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("1.1.1", "7", "88.33"))


def ref(uid: str, sop_class: str = DX, modality: str = "DX", **attributes: str) -> InstanceRef:
    told = {keyword: tuple(value.split("\\")) for keyword, value in attributes.items()}
    return InstanceRef(f"{uid}.0", uid, sop_class, modality, told)


def chosen(listed, accepted=(), *, delivered=(), made=None, **choose):
    choice = choose_instances(listed, Choose(**choose), accepted, delivered=delivered, made=made)
    return [instance.sop_instance_uid for instance in choice.instances], dict(choice.left_out)


@pytest.mark.parametrize(
    ("rule", "values", "holds"),
    [
        ("PatientName =~ ^TEST", ["TEST^One"], True),
        ("PatientName =~ ^TEST", ["Real^One"], False),
        ("PatientName !~ ^TEST", ["Real^One"], True),
        ("PatientName !~ ^TEST", ["", "TEST^One"], False),
        ("PatientName !~ ^TEST", [], True),
        ("Modality = SR", ["SR"], True),
        ("Modality = S", ["SR"], False),
        ("Modality = SR", [], False),
        ("Modality != SR", ["CR"], True),
        ("ImageType = DERIVED", ["DERIVED", "SECONDARY"], True),
        ("ImageType != DERIVED", ["DERIVED", "SECONDARY"], False),
        ("SeriesDescription=~(?i)ax.*lung", ["AX 1.0 Lung"], True),
    ],
)
def test_a_rule_is_about_any_of_the_values(rule: str, values: list[str], holds: bool) -> None:
    assert TagRule.parse(rule).holds(values) is holds


def test_each_key_narrows_the_choice_and_says_how_many_it_left_out() -> None:
    listed = [
        ref("1", SeriesDescription="AX lung", PatientName="Real"),
        ref("2", SeriesDescription="SAG lung", PatientName="Real"),
        ref("3", modality="CT", SeriesDescription="AX bone", PatientName="Real"),
        ref("4", SC, "OT"),
        ref("5", SR, "SR"),
    ]
    assert chosen(listed) == (["1", "2", "3"], {"a result": 2})
    assert chosen(listed, ["DX"])[0] == ["1", "2"]
    assert chosen(listed, modalities=["CT"])[0] == ["3"]
    assert chosen(listed, series=["^AX", "bone$"])[0] == ["1", "3"]
    assert chosen(listed, ["DX"], series=["^AX"], tags=["PatientName !~ ^TEST"]) == (
        ["1"],
        {"not in choose.series": 1, "not in accept.modalities": 1, "a result": 2},
    )
    assert chosen(listed, tags=["PatientName =~ ^TEST"]) == (
        [],
        {"not PatientName =~ ^TEST": 3, "a result": 2},
    )
    assert chosen(listed, tags=["Modality = CT"])[0] == ["3"]


def test_a_class_that_is_named_is_input_even_if_it_is_one_of_results() -> None:
    listed = [ref("1"), ref("2", SC, "OT"), ref("3", SR, "SR")]
    named = {"sop_classes": ["SecondaryCaptureImageStorage"]}
    assert chosen(listed, **named) == (["2"], {"not in choose.sop_classes": 1, "a result": 1})
    assert chosen(listed, delivered={"2"}, **named)[0] == []


def test_results_of_vendors_are_left_out_whatever_their_class() -> None:
    listed = [
        ref("1", Manufacturer="Samples", ImageType="ORIGINAL\\PRIMARY"),
        ref("2", Manufacturer="MILVUE ", ImageType="DERIVED\\SECONDARY"),
        ref("3", Manufacturer="Milvue"),
        ref("4", Manufacturer="Milvue", ImageType="ORIGINAL\\PRIMARY"),  # its scanner
        ref("5", Manufacturer="Samples"),
    ]
    made = made_by(listed, ["Milvue", "Other"])
    assert made == {"2": "Milvue", "3": "Milvue"}
    assert chosen(listed, made=made, delivered={"5"}) == (
        ["1", "4"],
        {"made by Milvue": 2, "a result of ours": 1},
    )


def test_what_no_instance_tells_is_remarked() -> None:
    choice = choose_instances([ref("1")], Choose(tags=["BodyPartExamined = HAND"]), ())
    assert choice.instances == ()
    assert choice.remarks == ("the archive tells no BodyPartExamined, which a rule is about",)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            'tags: ["PatientNam !~ ^TEST"]',
            "choose.tags.0: PatientNam is no DICOM keyword; perhaps PatientName",
        ),
        ('tags: ["Modality ~ CR"]', "choose.tags.0: a rule is written like PatientName !~ ^TEST"),
        ('tags: ["PatientName =~ (TEST"]', "choose.tags.0: (TEST is no regular expression: "),
        ('tags: ["PixelData = 1"]', "choose.tags.0: PixelData holds no text that a rule could be about"),
        ("tags: [5]", "choose.tags.0: a text is expected here; put it in quotes"),
        ('series: ["[AX"]', "choose.series.0: [AX is no regular expression: "),
        ("sop_classes: [XRay]", "choose.sop_classes.0: XRay is neither a UID nor a SOP class like "),
        ("tag: []", "choose.tag is not a key here; allowed: modalities, series, sop_classes, tags"),
    ],
)
def test_a_wrong_rule_is_told_with_its_line(tmp_path, key: str, sentence: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "adapters: {milvue: {kind: milvue}}\n"
        "departments:\n"
        "  emergency:\n"
        "    applications:\n"
        "      trauma:\n"
        "        display_name: Trauma\n"
        "        adapter: milvue\n"
        "        choose:\n"
        f"          {key}\n"
    )
    with pytest.raises(Misconfigured) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    said = re.sub(r"^.*line (8|9): departments\.emergency\.applications\.trauma\.", "", problem)
    assert said.startswith(sentence), problem


def test_the_archive_keys_are_served(tmp_path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "archives: {pacs: {kind: dicomweb, url: http://pacs, hours: 19:00-07:00, rate: 20/min}}\n"
    )
    pacs = load(path, {}).archives["pacs"]
    assert pacs.hours is not None and pacs.rate is not None
    assert (f"{pacs.hours.opens:%H:%M}", pacs.rate.count) == ("19:00", 20)
