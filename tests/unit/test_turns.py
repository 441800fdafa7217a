"""Whose turn it is: the urgent first, and nobody for ever last."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as some

from gateway.jobs.states import WORKING, State
from gateway.jobs.turns import Due, Outlook, Turns

LONG = 3600.0


def due(
    priority: int = 0,
    waited: float = 1,
    state: State = State.RECEIVED,
    adapter: str = "a",
    at_vendor: bool = False,
) -> Due:
    return Due(uuid4(), adapter, priority, state, at_vendor, waited)


def order(*waiting: Due, room: int = 100) -> list[UUID]:
    return [each.id for each in Turns(room).choose(Outlook(waiting), {})]


def test_the_urgent_go_first_then_who_is_nearest_to_its_end_then_who_waits_longest() -> None:
    expected = [
        due(9),
        due(5, 1, State.DELIVERING),
        due(5, 7),
        due(5, 2),
        due(0, 3, State.ANALYSING),
        due(0, 9),
    ]
    assert order(*reversed(expected)) == [each.id for each in expected]


def test_whoever_has_waited_for_long_gets_every_eighth_turn_and_no_more() -> None:
    turns, old = Turns(1), [due(0, LONG + number) for number in range(100)]
    taken = []
    for _ in range(80):
        [chosen] = turns.choose(Outlook([due(9), *old]), {})
        taken.append(chosen.priority)
        old = [each for each in old if each.id != chosen.id]
    assert Counter(taken) == {9: 70, 0: 10}
    assert [each.waited for each in old][-1] == LONG + 89, "the oldest went first"


def test_at_once_as_one_after_another() -> None:
    waiting = [*(due(9) for _ in range(40)), *(due(0, LONG) for _ in range(40))]
    chosen = Turns(32).choose(Outlook(waiting), {})
    assert Counter(each.priority for each in chosen) == {9: 28, 0: 4}


def test_one_vendor_never_fills_the_room_nor_do_several() -> None:
    turns, at_work = Turns(32, kept=8, vendors=5), Counter[str]()
    for vendor in ("a", "b", "c", "d", "e"):
        chosen = turns.choose(Outlook([due(adapter=vendor) for _ in range(50)]), at_work)
        assert chosen, f"{vendor} found no place"
        at_work[vendor] += len(chosen)
    assert at_work["a"] == 12
    assert at_work.total() <= 24
    urgent = turns.choose(Outlook([due(9, adapter="a") for _ in range(50)]), at_work)
    assert urgent, "the urgent have places of their own, at the vendor that fills its share too"


def test_a_vendor_that_is_alone_has_the_room_but_what_is_kept() -> None:
    chosen = Turns(32, kept=8).choose(Outlook([due() for _ in range(50)]), {})
    assert len(chosen) == 24


def test_no_more_than_there_are_places_at_a_vendor() -> None:
    waits = [due(state=State.SUBMITTING) for _ in range(5)]
    there = [due(state=State.SUBMITTING, at_vendor=True) for _ in range(2)]
    chosen = Turns(32).choose(Outlook([*waits, *there], free={"a": 3}), {})
    assert Counter(each.at_vendor for each in chosen) == {False: 3, True: 2}


waiting = some.lists(
    some.builds(
        due,
        some.integers(0, 9),
        some.floats(0, 2 * LONG),
        some.sampled_from(WORKING),
        some.sampled_from("abc"),
        some.booleans(),
    ),
    max_size=60,
)


@given(waiting, some.dictionaries(some.sampled_from("abc"), some.integers(0, 12)), some.integers(1, 4))
def test_never_beyond_the_room_and_nobody_twice(
    due: list[Due], at_work: dict[str, int], vendors: int
) -> None:
    chosen = Turns(32, kept=8, vendors=vendors).choose(Outlook(due, free={"a": 2, "b": -1}), at_work)
    assert len({each.id for each in chosen}) == len(chosen)
    assert not chosen or len(chosen) + sum(at_work.values()) <= 32
    assert sum(each.needs_place and each.adapter == "a" for each in chosen) <= 2
    assert not any(each.needs_place and each.adapter == "b" for each in chosen)


def test_what_nobody_waits_for_goes_last_in_a_part_of_the_room_and_never_ages() -> None:
    turns, shadows = Turns(32, kept=8), [due(-1, 9 * LONG) for _ in range(50)]
    assert len(turns.choose(Outlook(shadows), {})) == 4
    assert turns.choose(Outlook(shadows), {"a": 4}) == []
    chosen = turns.choose(Outlook([*shadows, *(due(0, 1) for _ in range(30))]), {})
    assert Counter(each.priority for each in chosen) == {0: 24}


def test_what_nobody_waits_for_leaves_a_place_at_its_vendor() -> None:
    real, shadow = due(0, state=State.SUBMITTING), due(-1, state=State.SUBMITTING)
    there = Outlook([shadow, real], free={"a": 2}, spare={"a": 1})
    assert Turns(32).choose(there, {}) == [real]
    assert Turns(32).choose(Outlook([shadow], spare={"a": 1}), {}) == [shadow]
