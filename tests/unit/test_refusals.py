"""Refusals are told, and don't fill the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from gateway.dicom.refusals import Refusals

TOO_MANY = "refused an association: there are too many"
UNKNOWN = "refused an association: no known peer calls"


def test_the_first_of_a_kind_is_told_at_once_and_then_how_many_there_were() -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    with capture_logs() as told:
        for now in range(120):
            refusals.tell(TOO_MANY, "10.0.0.1")
            refusals.tell(UNKNOWN, "10.0.0.1", calling=f"GUESS{now}")
        refusals.tell(TOO_MANY, "10.0.0.2")
    seen = [(each["event"], each["address"], each.get("before")) for each in told]
    assert seen == [
        (TOO_MANY, "10.0.0.1", None),
        (UNKNOWN, "10.0.0.1", None),
        (TOO_MANY, "10.0.0.1", 59),
        (UNKNOWN, "10.0.0.1", 59),
        (TOO_MANY, "10.0.0.2", None),
    ]
    assert [each["calling"] for each in told if "calling" in each] == ["GUESS0", "GUESS60"]


def test_addresses_without_end_are_not_remembered_without_end() -> None:
    refusals = Refusals(lambda: 0.0)
    with capture_logs() as told:
        for number in range(3000):
            refusals.tell(TOO_MANY, f"10.0.{number // 250}.{number % 250}")
        refusals.tell(TOO_MANY, "10.0.11.249")
        refusals.tell(TOO_MANY, "10.0.0.0")
    assert len(told) == 3001
