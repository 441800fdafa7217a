"""How the console counts things."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from gateway.console.wording import count, exact, second, sentence, zone


@pytest.mark.parametrize(
    ("number", "thing", "told"),
    [(1, "day", "1 day"), (999, "day", "999 days"), (2, "study", "2 studies"), (0, "job", "0 jobs")],
)
def test_things_are_counted_as_people_say_it(number: int, thing: str, told: str) -> None:
    assert count(number, thing) == told


@pytest.mark.parametrize(
    ("place", "told", "hour"), [("UTC", "UTC", "12"), ("<CEST>-2", "CEST (UTC+02:00)", "14")]
)
def test_times_say_whose_they_are(monkeypatch: pytest.MonkeyPatch, place: str, told: str, hour: str) -> None:
    monkeypatch.setenv("TZ", place)
    time.tzset()
    try:
        at = datetime(2026, 7, 1, 12, 5, 9, tzinfo=UTC)
        assert zone() == told
        assert exact(at).endswith(f">2026-07-01 {hour}:05:09</time>")
        assert f'title="2026-07-01 {hour}:05:09 {told.partition(" ")[0]}"' in second(at)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_sentence_begins_large_ends_and_shows_what_is_written_as_it_stands() -> None:
    assert sentence("try `a<b`, or ask") == "Try <code>a&lt;b</code>, or ask."
    assert sentence("is <b> `there?") == "Is &lt;b&gt; `there?"
    assert sentence(None) == ""
