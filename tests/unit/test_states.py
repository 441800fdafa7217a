from __future__ import annotations

import pytest

from gateway.jobs.states import ALIVE, FINAL, NEXT, WORKING, Forbidden, State, check


def test_every_state_stands_in_the_table():
    assert set(NEXT) == set(State)
    assert set(ALIVE) | set(FINAL) == set(State)


def test_the_way_of_a_job_is_open():
    for now, then in zip(WORKING, (*WORKING[1:], State.DONE), strict=True):
        check(now, then)


def test_no_step_is_skipped_and_none_is_taken_back():
    for place, now in enumerate(WORKING):
        for then in (*WORKING[:place], *WORKING[place + 2 :]):
            with pytest.raises(Forbidden):
                check(now, then)


def test_whatever_lives_can_be_cancelled_and_nothing_that_has_ended():
    for now in ALIVE:
        check(now, State.CANCELLED)
    for now in (State.DONE, State.FAILED):
        with pytest.raises(Forbidden):
            check(now, State.CANCELLED)


def test_held_resumes_where_it_was_held():
    check(State.HELD, State.ANALYSING, held_in=State.ANALYSING)
    with pytest.raises(Forbidden):
        check(State.HELD, State.SUBMITTING, held_in=State.ANALYSING)


def test_done_is_final():
    assert not NEXT[State.DONE]
