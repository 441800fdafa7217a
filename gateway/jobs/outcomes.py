"""What a step says of a job; the engine alone writes it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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
    """Nothing to do until then; costs no attempt."""

    after: float | None = None
    at: datetime | None = None
    what: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rest:
    """An ended or held job has told all it had to tell: it leaves the queue."""

    what: str | None = None


Outcome = Advance | Wait | Rest
