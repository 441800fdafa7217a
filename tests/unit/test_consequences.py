"""What follows from what was found: a decision table."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract import Finding
from gateway.settings.consequences import Threshold, When
from gateway.work.consequences import decide


def rule(**said: Any) -> When:
    return When.model_validate({"finding": "fracture", **said})


def seen(label: str = "Fracture", score: float | None = 0.9) -> Finding:
    return Finding(label, "none", score=score)


RIS, VNA = {"deliver": ["ris"]}, {"deliver": ["ris", "vna"]}
SURE = {"score": ">0.8", **RIS}
LOUD = {"priority": 9, "notify": "emergency"}
ALSO = {"finding": "effusion", **LOUD}


@pytest.mark.parametrize(
    ("rules", "findings", "deliver", "priority", "notify"),
    [
        ([], [seen()], [], None, []),
        ([RIS], [], [], None, []),
        ([RIS], [seen("effusion")], [], None, []),
        ([RIS], [seen("fracture of the rib")], [], None, []),
        ([RIS], [seen(" FRACTURE ")], ["ris"], None, []),
        ([RIS], [seen(score=None)], ["ris"], None, []),
        ([SURE], [seen(score=None)], [], None, []),
        ([SURE], [seen(score=0.8)], [], None, []),
        ([SURE], [seen(score=0.81)], ["ris"], None, []),
        ([SURE], [seen(score=float("nan"))], [], None, []),
        ([SURE], [seen("effusion", 0.99), seen(score=0.2)], [], None, []),
        ([SURE], [seen(score=0.2), seen(score=0.95)], ["ris"], None, []),
        ([RIS, VNA], [seen()], ["ris", "vna"], None, []),
        ([{"priority": 3}, {"priority": 7}], [seen()], [], 7, []),
        ([{"priority": 7, "score": ">0.95"}, {"priority": 3}], [seen()], [], 3, []),
        ([{"priority": 0}], [seen()], [], 0, []),
        ([LOUD, {"notify": "emergency"}, {"notify": "surgery"}], [seen()], [], 9, ["emergency", "surgery"]),
        (
            [SURE, ALSO],
            [seen(), seen("Effusion", None)],
            ["ris"],
            9,
            ["emergency"],
        ),
    ],
)
def test_what_follows(
    rules: list[dict[str, Any]],
    findings: list[Finding],
    deliver: list[str],
    priority: int | None,
    notify: list[str],
) -> None:
    followed = decide([rule(**each) for each in rules], findings)
    assert (followed.deliver, followed.priority, list(followed.notify)) == (deliver, priority, notify)


@pytest.mark.parametrize(
    ("written", "holds"),
    [(">0.5", [1.0]), (">= 0.5", [0.5, 1.0]), ("<0.5", [0.0]), ("<=0.5", [0.0, 0.5]), ("= 0.5", [0.5])],
)
def test_each_operator(written: str, holds: list[float]) -> None:
    threshold = Threshold.parse(written)
    assert [score for score in (0.0, 0.5, 1.0) if threshold.holds(score)] == holds
    assert not threshold.holds(None)


def test_the_history_has_the_words_of_the_configuration_and_none_of_the_vendors() -> None:
    found = Finding("FRACTURE", "box", ((1.0, 2.0), (3.0, 4.0)), "1.2.3", 0.9, measure="Doe^Jane")
    followed = decide([rule(score=">0.8", deliver=["ris"], **LOUD)], [found])
    assert followed.told == [
        "fracture, score > 0.8: also to ris; at priority 9 at least; the contact of emergency is told"
    ]
