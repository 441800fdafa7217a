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
    turns, at_work = Turns(32, kept=8, vendors=5), Counter[tuple[str, int]]()
    for vendor in ("a", "b", "c", "d", "e"):
        chosen = turns.choose(Outlook([due(adapter=vendor) for _ in range(50)]), at_work)
        assert chosen, f"{vendor} found no place"
        at_work[vendor, 0] += len(chosen)
    assert at_work["a", 0] == 12
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

busy = some.dictionaries(
    some.tuples(some.sampled_from("abc"), some.integers(-1, 9)), some.integers(0, 12), max_size=8
)


@given(waiting, busy, some.integers(1, 4))
def test_never_beyond_the_room_and_nobody_twice(
    due: list[Due], at_work: dict[tuple[str, int], int], vendors: int
) -> None:
    chosen = Turns(32, kept=8, vendors=vendors).choose(Outlook(due, free={"a": 2, "b": -1}), at_work)
    assert len({each.id for each in chosen}) == len(chosen)
    assert not chosen or len(chosen) + sum(at_work.values()) <= 32
    assert sum(each.needs_place and each.adapter == "a" for each in chosen) <= 2
    assert not any(each.needs_place and each.adapter == "b" for each in chosen)


def test_what_nobody_waits_for_goes_last_in_a_part_of_the_room_and_never_ages() -> None:
    turns, shadows = Turns(32, kept=8), [due(-1, 9 * LONG) for _ in range(50)]
    assert len(turns.choose(Outlook(shadows), {})) == 4
    assert turns.choose(Outlook(shadows), {("a", -1): 4}) == []
    chosen = turns.choose(Outlook([*shadows, *(due(0, 1) for _ in range(30))]), {})
    assert Counter(each.priority for each in chosen) == {0: 24}


def test_what_nobody_waits_for_leaves_a_place_at_its_vendor() -> None:
    real, shadow = due(0, state=State.SUBMITTING), due(-1, state=State.SUBMITTING)
    there = Outlook([shadow, real], free={"a": 2}, spare={"a": 1})
    assert Turns(32).choose(there, {}) == [real]
    assert Turns(32).choose(Outlook([shadow], spare={"a": 1}), {}) == [shadow]


@given(some.lists(some.tuples(some.booleans(), some.integers(0, 12), some.booleans()), max_size=80))
def test_whoever_has_waited_for_long_gets_its_vendors_place_however_the_turns_of_others_fall(
    rounds: list[tuple[bool, int, bool]],
) -> None:
    """A vendor with one place, which is now and then free, and always an urgent job that waits for it too;
    others go on meanwhile, old ones of theirs too."""
    turns, old = Turns(32, vendors=3), due(0, LONG, State.SUBMITTING)
    urgent = 0
    for free, others, aged in rounds:
        beside = [due(9, LONG if aged else 1, adapter="b") for _ in range(others)]
        waits = [due(9, state=State.SUBMITTING), old, *beside, due(0, 2 * LONG, adapter="c")]
        chosen = turns.choose(Outlook(waits, free={"a": int(free)}), {})
        if old in chosen:
            return
        urgent += sum(each.adapter == "a" for each in chosen)
        assert urgent < 8


@given(waiting, busy, some.integers(1, 4))
def test_the_urgent_go_first_wherever_they_can_go(
    due: list[Due], at_work: dict[tuple[str, int], int], vendors: int
) -> None:
    """Whoever is left had no place at its vendor, or was no more urgent than those that went; but for the
    turns of those that have waited for long."""
    turns = Turns(32, kept=8, vendors=vendors)
    chosen = turns.choose(Outlook([each for each in due if each.waited <= 600], free={"a": 2}), at_work)
    assert [each.rank for each in chosen] == sorted(each.rank for each in chosen)
    places = sum(each.needs_place and each.adapter == "a" for each in chosen)
    count = Counter(at_work) + Counter((each.adapter, each.priority) for each in chosen)
    for left in {each.id: each for each in due if each.waited <= 600 and each not in chosen}.values():
        could = not (left.needs_place and left.adapter == "a" and places >= 2)
        assert not (could and turns.has_room(left.adapter, left.priority, count))


@given(
    some.lists(some.tuples(some.integers(0, 8), some.floats(0, 2 * LONG)), max_size=40),
    some.integers(1, 32),
    some.integers(1, 4),
)
def test_routine_is_never_starved_by_a_stream_of_urgent_work(
    routine: list[tuple[int, float]], room: int, vendors: int
) -> None:
    """That fills the room, what is kept of it too: each that has waited for long goes within eight turns of
    its own, the longest first."""
    turns, urgent = Turns(room, room // 4, vendors), {(f"b{number}", 9): 1 for number in range(room - 1)}
    left = [due(priority, LONG + waited) for priority, waited in routine]
    turns_had = 0
    for had in range(8 * len(left) + 8):
        if not left:
            return
        [first] = turns.choose(Outlook([due(9, adapter="b"), *left]), urgent)
        if first in left:
            assert first.waited == max(each.waited for each in left)
            left.remove(first)
            turns_had = had + 1
        assert had - turns_had < 8
    assert not left


def test_those_that_waited_for_long_never_fill_what_is_kept_for_the_urgent() -> None:
    turns, at_work = Turns(32, kept=8, vendors=2), Counter[tuple[str, int]]()
    for _ in range(100):
        old = [due(0, LONG, adapter=adapter) for adapter in "ab" for _ in range(20)]
        for each in turns.choose(Outlook([due(9, adapter="c"), *old]), at_work):
            if each.priority < 9:  # which hang; the urgent are done at once
                at_work[each.adapter, 0] += 1
    assert 12 <= at_work.total() <= 24
