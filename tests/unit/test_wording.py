"""How the console counts things."""

from __future__ import annotations

import pytest

from gateway.console.wording import count


@pytest.mark.parametrize(
    ("number", "thing", "told"),
    [(1, "day", "1 day"), (999, "day", "999 days"), (2, "study", "2 studies"), (0, "job", "0 jobs")],
)
def test_things_are_counted_as_people_say_it(number: int, thing: str, told: str) -> None:
    assert count(number, thing) == told
