"""What Milvue found, in each way that it tells it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from adapters.milvue.adapter import Milvue
from gateway.contract import Failure, Finding, Finished, NeedsHuman, Pending, Permanent, Retryable
from gateway.suite.studies import OTHER_STUDY, STUDY
from tests.peers.milvue_vendor import (
    RESULT,
    SIGNATURE,
    TICKET,
    MilvueVendor,
    dicom,
    parts,
    said,
)

URGENCES = {
    "StudyInstanceUID": STUDY,
    "status": "done",
    "flag": {"score": 0.97, "label": "abnormal"},
    "hl7": "MSH|^~\\&|MILVUE\rOBX|1|TX|||fracture\r",
    "findings": [
        {
            "value": "fracture",
            "translation": {"en": "Fracture", "fr": "Fracture osseuse"},
            "label": "abnormal",
        },
        {
            "value": "effusion",
            "translation": {"en": "Effusion", "fr": "Épanchement"},
            "label": "doubt",
            "score": 0.5,
        },
        {"value": "nodule", "translation": {"en": "Nodule"}, "label": "normal", "score": 0.01},
    ],
    "instances": [
        {
            "SOPInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2",
            "body_parts": ["hand"],
            "findings": [],
            "bounding_boxes": [
                {
                    "value": "fracture",
                    "label": "abnormal",
                    "score": 0.9,
                    "top_left": [1, 2],
                    "bottom_right": [30, 40],
                },
                {
                    "value": "fracture",
                    "label": "abnormal",
                    "score": 0.8,
                    "top_left": [5, 6],
                    "bottom_right": [7, 8],
                },
                {
                    "value": "nodule",
                    "label": "normal",
                    "score": 0.1,
                    "top_left": [0, 0],
                    "bottom_right": [1, 1],
                },
            ],
        }
    ],
    "signed_url": f"https://milvue.example/?sig={SIGNATURE}",
    "report": {
        "title": "Main",
        "techniques": ["Face"],
        "results": [{"region": "Main", "items": ["Fracture"]}],
    },
}


EXPERT = {
    "StudyInstanceUID": STUDY,
    "status": "done",
    "instances": [
        {
            "SOPInstanceUID": "1.2.4",
            "measures": [
                {
                    "type": "angle",
                    "value": "hallux",
                    "measure": 12.5,
                    "unit": "°",
                    "lines": [[0, 0, 9, 9], [0, 0, 9, 0]],
                },
                {"type": "length", "value": 38, "measure": "leg", "unit": "mm", "lines": [[1, 2, 3, 4]]},
            ],
        }
    ],
}


async def test_findings_and_measures(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options |= {"commands": ["smarturgences", "smartxpert", "trauma"], "language": "fr"}
    for command in vendor.options["commands"]:
        vendor.results[command] = parts(dicom(RESULT))
    vendor.findings = {"smarturgences": said(**URGENCES), "smartxpert": said(**EXPERT)}
    finished = await vendor.adapter(session, tmp_path).poll(TICKET)
    assert isinstance(finished, Finished)
    assert finished.findings == (
        Finding("Fracture osseuse", "box", ((1, 2), (30, 40)), "1.2.3", 0.9),
        Finding("Fracture osseuse", "box", ((5, 6), (7, 8)), "1.2.3", 0.8),
        Finding("Épanchement (doubt)", "none", score=0.5),
        Finding("hallux", "polyline", ((0, 0), (9, 9)), "1.2.4", measure="12.5°"),
        Finding("hallux", "polyline", ((0, 0), (9, 0)), "1.2.4"),
        Finding("leg", "polyline", ((1, 2), (3, 4)), "1.2.4", measure="38 mm"),
    )
    assert finished.summary == (
        "Milvue smarturgences: abnormal (Fracture osseuse ×2, Épanchement (doubt)); "
        "Milvue smartxpert: hallux, leg; Milvue trauma: done"
    )
    assert finished.properties["smarturgences"] == "abnormal"
    assert finished.properties["smarturgences score"] == 0.97
    assert finished.hl7 == (URGENCES["hl7"],)
    assert len({path.name for path in finished.dicom}) == 3
    (document,) = finished.documents
    assert (document.title, "- Fracture" in document.path.read_text()) == ("Main", True)
    assert SIGNATURE not in repr(finished)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(**{**URGENCES, "StudyInstanceUID": OTHER_STUDY}), NeedsHuman),
        (said(StudyInstanceUID=STUDY, status="forbidden"), NeedsHuman),
        (
            said(
                **{**URGENCES, "instances": [{"SOPInstanceUID": "1", "bounding_boxes": [{"top_left": "x"}]}]}
            ),
            Retryable,
        ),
        (said(**{**URGENCES, "findings": 5}), Retryable),
    ],
)
async def test_findings_that_are_none(
    vendor: MilvueVendor, adapter: Milvue, answer: tuple[int, str, bytes], kind: type[Failure]
) -> None:
    vendor.findings["smarturgences"] = answer
    with pytest.raises(kind):
        await adapter.poll(TICKET)


async def test_what_is_there_is_gathered_and_what_is_not_is_named(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """While Milvue is still at it, "nothing found" may only be all that it knows so far."""
    vendor.options["commands"] = ["smarturgences", "smartxpert", "trauma"]
    vendor.status[STUDY] = "running"
    vendor.findings = {"smarturgences": said(**URGENCES), "smartxpert": said(status="running")}
    vendor.results = {"smarturgences": parts(dicom(RESULT)), "smartxpert": parts(), "trauma": parts()}
    adapter = vendor.adapter(session, tmp_path)
    assert isinstance(await adapter.poll(TICKET), Pending)
    gathered = await adapter.gather(TICKET)
    assert gathered is not None and len(gathered.dicom) == 1
    missing = "failed: Milvue hadn't finished it in the time that it has"
    assert [each["sentence"] for each in gathered.analyses] == ["the result is there", missing, missing]
    vendor.status[STUDY] = "done"
    gathered = await adapter.gather(TICKET)
    assert gathered is not None
    assert [each["sentence"] for each in gathered.analyses][1:] == [missing, "nothing found"]
    vendor.findings = {each: said(status="running") for each in ("smarturgences", "smartxpert")}
    vendor.status[STUDY] = "running"
    assert await adapter.gather(TICKET) is None


@pytest.mark.parametrize(
    "unknown", [(404, "application/json", b"{}"), said(status="done"), said(status="odd")]
)
async def test_unknown_is_not_nothing_found(
    vendor: MilvueVendor, adapter: Milvue, unknown: tuple[int, str, bytes]
) -> None:
    vendor.results["smarturgences"] = parts()
    vendor.findings["smarturgences"] = unknown
    with pytest.raises(Retryable):
        await adapter.poll(TICKET)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        ("done", said(status="forbidden")),
        ("done", said(status="error")),
        ("done", said(422, message="no such product")),
        ("error", said(status="error")),
        ("error", said(status="running")),
        ("error", parts()),
    ],
)
async def test_what_one_command_found_is_told_when_the_other_failed(
    vendor: MilvueVendor,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    status: str,
    trouble: tuple[int, str, bytes],
) -> None:
    vendor.status[STUDY] = status
    for commands in (["smarturgences", "trauma"], ["trauma", "smarturgences"]):
        vendor.options |= {"commands": commands}
        vendor.results = {"smarturgences": parts(dicom(RESULT)), "trauma": trouble}
        vendor.findings = {"smarturgences": said(**URGENCES)}
        finished = await vendor.adapter(session, tmp_path).poll(TICKET)
        assert isinstance(finished, Finished)
        assert "Milvue smarturgences: abnormal (" in finished.summary
        assert "Milvue trauma: failed (" in finished.summary
        assert finished.properties["trauma"] == "failed"
        assert [path.read_bytes() for path in finished.dicom] == [RESULT]
        assert len(finished.failed) == 1
        assert not finished.empty
    vendor.results["smarturgences"] = trouble
    vendor.findings["smarturgences"] = said(status="error")
    with pytest.raises((NeedsHuman, Permanent)):
        await vendor.adapter(session, tmp_path).poll(TICKET)


async def test_the_worst_of_one_kind_is_shown(vendor: MilvueVendor, adapter: Milvue) -> None:
    seen = {"value": "fracture", "translation": {"en": "Fracture"}}
    labels = ("normal", "abnormal", "doubt", "normal")
    found = [{**seen, "label": label} for label in labels]
    vendor.results["smarturgences"] = parts()
    vendor.findings["smarturgences"] = said(**{**URGENCES, "findings": found, "instances": []})
    finished = await adapter.poll(TICKET)
    assert isinstance(finished, Finished)
    assert finished.properties["Fracture"] == "abnormal"
