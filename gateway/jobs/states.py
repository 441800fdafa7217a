"""Where a job can be, and where it may go from there. A pure table: no I/O, no clock.

    received ─▶ locating ─▶ submitting ─▶ analysing ─▶ delivering ─▶ done
        └───────────┴────────────┴────────────┴────────────┴──▶ failed · cancelled · held

A retry is no state. `held` goes back to the state it was held in. A person may reopen a failed or cancelled
job: it then begins again.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    RECEIVED = "received"
    LOCATING = "locating"
    SUBMITTING = "submitting"
    ANALYSING = "analysing"
    DELIVERING = "delivering"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HELD = "held"


WORKING = (State.RECEIVED, State.LOCATING, State.SUBMITTING, State.ANALYSING, State.DELIVERING)
FINAL = (State.DONE, State.FAILED, State.CANCELLED)
ALIVE = (*WORKING, State.HELD)

_STOPS = {State.FAILED, State.CANCELLED, State.HELD}

NEXT: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.LOCATING} | _STOPS),
    State.LOCATING: frozenset({State.SUBMITTING} | _STOPS),
    State.SUBMITTING: frozenset({State.ANALYSING} | _STOPS),
    State.ANALYSING: frozenset({State.DELIVERING} | _STOPS),
    State.DELIVERING: frozenset({State.DONE} | _STOPS),
    State.HELD: frozenset({*WORKING, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset({State.RECEIVED}),
    State.CANCELLED: frozenset({State.RECEIVED}),
}


class Forbidden(Exception):
    """A transition that the table doesn't have: a bug of ours."""


def check(now: State, then: State, held_in: State | None = None) -> None:
    """Raise unless a job may go from `now` to `then`; staying is always allowed."""
    if now == then:
        return
    if then not in NEXT[now]:
        raise Forbidden(f"a job can't go from {now} to {then}")
    if now == State.HELD and then in WORKING and then != held_in:
        raise Forbidden(f"a job held in {held_in} resumes there, not in {then}")
