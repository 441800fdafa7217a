"""How long each step of a job took and each call within it, for whoever collects traces; nothing is kept
where nobody does.

A job has one trace, whichever replicas work on it: its id is the job's, and that of the span which all others
belong to is made of it. Nothing of a patient stands in a span, nor an address: they name states, peers and
answers.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

_KEPT = 5000  # spans; older ones are lost
_BITS = 56  # of an id, by which it is chosen: those that are random in every kind of id

Value = str | int


@dataclass(slots=True)
class Span:
    """`failed`: what kind of failure it ended in."""

    trace: UUID
    id: bytes
    parent: bytes | None
    name: str
    began: int  # nanoseconds since 1970
    ended: int = 0
    calls: bool = False  # somebody else
    attributes: dict[str, Value] = field(default_factory=dict)
    failed: str = ""


class Recorder:
    """`sample`: the part of all jobs that is recorded, the same on each replica."""

    def __init__(self, sample: float) -> None:
        self._most = int(sample * (1 << _BITS))
        self._kept: deque[Span] = deque()
        self.lost = 0

    def wants(self, job_id: UUID) -> bool:
        return job_id.int & ((1 << _BITS) - 1) < self._most

    def keep(self, span: Span) -> None:
        if len(self._kept) == _KEPT:
            self._kept.popleft()
            self.lost += 1
        self._kept.append(span)

    def take(self, most: int) -> list[Span]:
        return [self._kept.popleft() for _ in range(min(most, len(self._kept)))]


_recorder: Recorder | None = None
_current: ContextVar[Span | None] = ContextVar("span", default=None)


def record(sample: float) -> Recorder:
    global _recorder
    _recorder = Recorder(sample)
    return _recorder


def record_no_more(recorder: Recorder) -> None:
    """Unless another records by now."""
    global _recorder
    if _recorder is recorder:
        _recorder = None


@contextmanager
def step(job_id: UUID, name: str, attributes: Mapping[str, Value]) -> Iterator[None]:
    if _recorder is None or not _recorder.wants(job_id):
        yield
        return
    span = Span(job_id, os.urandom(8), _whole(job_id), name, time.time_ns(), attributes=dict(attributes))
    mark = _current.set(span)
    try:
        yield
    except BaseException as trouble:
        span.failed = span.failed or type(trouble).__name__
        raise
    finally:
        _current.reset(mark)
        _end(span)


def fail(kind: str) -> None:
    """The step that is just done has failed."""
    span = _current.get()
    if span is not None:
        span.failed = kind


def begin_call(name: str, attributes: Mapping[str, Value]) -> Span | None:
    """Within a step."""
    within = _current.get()
    if within is None:
        return None
    return Span(
        *(within.trace, os.urandom(8), within.id, name, time.time_ns()),
        calls=True,
        attributes=dict(attributes),
    )


def end_call(span: Span | None, failed: str = "", **attributes: Value) -> None:
    if span is not None:
        span.failed = failed
        span.attributes |= attributes
        _end(span)


@contextmanager
def call(protocol: str, peer: str, **attributes: Value) -> Iterator[None]:
    """Within a step; what is raised there is how it failed."""
    span = begin_call(f"{protocol} {peer}", {"peer.service": peer, **attributes})
    try:
        yield
    except BaseException as trouble:
        end_call(span, type(trouble).__name__)
        raise
    end_call(span)


def end_job(job_id: UUID, began: datetime, attributes: Mapping[str, Value], failed: str = "") -> None:
    """The span that all of the job's belong to."""
    if _recorder is not None and _recorder.wants(job_id):
        since = int(began.timestamp() * 1e9)
        _end(Span(job_id, _whole(job_id), None, "job", since, attributes=dict(attributes), failed=failed))


def _whole(job_id: UUID) -> bytes:
    return hashlib.sha256(job_id.bytes).digest()[:8]


def _end(span: Span) -> None:
    span.ended = time.time_ns()
    if _recorder is not None:
        _recorder.keep(span)
