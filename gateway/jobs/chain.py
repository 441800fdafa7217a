"""Whether a job's history is as it was written: each event holds the hash of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from gateway.jobs.records import Event


def find_break(job_id: UUID, events: Sequence[Event]) -> str | None:
    """Where the chain is broken, in one sentence; None when it is whole."""
    previous = ""
    for number, event in enumerate(events, start=1):
        if event.previous_hash != previous:
            return f"event {number} doesn't follow the one before it: one was removed, put in or moved"
        if event.seal(job_id) != event.hash:
            return f"event {number} was changed after it was written"
        previous = event.hash
    return None
