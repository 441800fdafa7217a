"""What a step says of a job, which the engine alone writes down; and who else may hear of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.jobs.records import Job
from gateway.jobs.states import State


@dataclass(frozen=True, slots=True)
class Advance:
    """The step is done: on to the next state, with what was learnt (`values` are columns of the job)."""

    to: State
    what: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until then; costs no attempt. `why`: what it waits for, if `what`, which enters its
    history, doesn't say so."""

    after: float | None = None
    at: datetime | None = None
    what: str | None = None
    why: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rest:
    """An ended or held job has told all it had to tell: it leaves the queue."""

    what: str | None = None


Outcome = Advance | Wait | Rest


class Observer:
    """Hears what the engine does with jobs, and changes nothing. This one lets it pass."""

    @contextmanager
    def step(self, job: Job) -> Iterator[None]:  # noqa: ARG002
        yield

    def entered(self, job: Job, state: str) -> None:
        pass

    def retried(self, job: Job, kind: str) -> None:
        """`kind`: of the failure."""

    def ended(self, job: Job, state: str) -> None:
        pass
