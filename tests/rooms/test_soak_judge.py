"""What the soak's judge takes for the gateway's word kept, and what not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.soak.model import is_anothers, stood_before

STORED = "the vendor called: a change of result 5"


def job(name: str, *events: tuple[float, str]) -> dict[str, Any]:
    return {
        "id": name,
        "events": [
            {"at": datetime.fromtimestamp(at, UTC).isoformat(), "what": what, "detail": {"outcome": "200"}}
            for at, what in events
        ],
    }


def test_what_another_job_sends_after_the_first_was_confirmed_is_its_own() -> None:
    first = job("a", (10, "sending to the vendor"), (12, "the vendor has the study"))
    assert is_anothers([first, job("b", (20, "sending to the vendor"))], 11, 21)
    assert not is_anothers([first, job("b", (11.5, "sending to the vendor"))], 11, 21)
    assert not is_anothers([first], 11, 21)
    again = job(
        "a", *((each, "sending to the vendor") for each in (10, 15)), (12, "the vendor has the study")
    )
    assert not is_anothers([again, job("b")], 11, 21)


def test_what_a_vendor_stored_before_the_cancel_may_stay_and_nothing_after_it() -> None:
    assert stood_before(job("a", (10, STORED), (11, "cancelled")), [9.9])
    assert not stood_before(job("a", (11, "cancelled")), [])
    noted_late = job("a", (8, STORED), (11, "cancelled"), (11.1, STORED))
    assert stood_before(noted_late, [7.9, 10.9, 11.2])
    assert not stood_before(noted_late, [7.9, 11.05, 11.2])
    assert not stood_before(job("a", (8, STORED), (11, "cancelled"), (12, STORED), (13, STORED)), [7.9, 10.9])
