"""The name that was meant, where another was written."""

from __future__ import annotations

import pytest

from gateway.jobs.states import State
from gateway.nearest import did_you_mean, find_nearest, no_such


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("reslt_within", ["result_within", "retry", "register"], "result_within"),
        ("Result-Within", ["result_within", "retry"], "result_within"),
        ("jbos", ["jobs", "check", "config"], "jobs"),
        ("hld", State, "held"),
        ("milvue_trauma", ["milvue-trauma", "milvue-chest"], "milvue-trauma"),
        ("kubernetes", ["vna", "pacs"], None),
        ("", ["vna"], None),
        ("v" * 100_000, ["v" * 99_999], None),
        (7, ["7"], None),
    ],
)
def test_what_is_like_it_is_offered(given: object, known: list[str], meant: str | None) -> None:
    assert find_nearest(given, known) == meant
    assert did_you_mean(given, known) == ("" if meant is None else f"; did you mean {meant}?")


def test_all_that_are_known_are_named_before() -> None:
    assert (
        no_such("adapter", "milvu", ["nuclei", "milvue"])
        == "there is no adapter milvu; known: milvue, nuclei; did you mean milvue?"
    )
    assert no_such("adapter", "x", []) == "there is no adapter x; known: none"
