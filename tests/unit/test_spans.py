"""What is kept of jobs' steps and calls, for whoever collects traces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from gateway import spans
from gateway.settings.tree import Misconfigured
from gateway.spans import Recorder
from gateway.watch.traces import _load_writer


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = spans.record(1.0)
    yield made
    spans.record_no_more(made)


def test_nothing_is_kept_where_nobody_collects() -> None:
    with spans.step(uuid4(), "step", {}):
        assert spans.begin_call("GET", {}) is None
    spans.end_call(None)
    spans.end_job(uuid4(), datetime.now(UTC), {})


def test_all_of_a_job_belong_to_one_trace(recorder: Recorder) -> None:
    job = uuid4()
    for _ in range(2):
        with spans.step(job, "step", {"gateway.attempt": 1}):
            spans.end_call(spans.begin_call("GET archives.vna", {}), "503", answer=503)
            spans.fail("retryable")
    spans.end_job(job, datetime.now(UTC), {})
    assert spans.begin_call("GET", {}) is None, "no step is under way"
    call, step, _, _, whole = recorder.take(10)
    assert {each.trace for each in (call, step, whole)} == {job}
    assert call.parent == step.id and step.parent == whole.id and whole.parent is None
    assert (call.failed, step.failed) == ("503", "retryable") and call.attributes == {"answer": 503}
    assert whole.began <= whole.ended and step.began <= call.began <= call.ended <= step.ended


def test_a_part_of_all_jobs_is_recorded_the_same_by_each_replica() -> None:
    jobs = [
        UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4) for number in range(4000)
    ]
    chosen = [{job for job in jobs if recorder.wants(job)} for recorder in (Recorder(0.1), Recorder(0.1))]
    assert chosen[0] == chosen[1] and 300 < len(chosen[0]) < 500
    assert all(Recorder(1.0).wants(job) for job in jobs)


def test_who_lacks_what_sends_spans_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.common.v1.common_pb2", None)
    with pytest.raises(Misconfigured, match=r"imaging-gateway\[traces\] isn't installed here"):
        _load_writer()


def test_spans_that_nobody_takes_are_lost_and_counted(recorder: Recorder) -> None:
    for _ in range(6000):
        spans.end_job(uuid4(), datetime.now(UTC), {})
    assert recorder.lost == 1000 and len(recorder.take(10_000)) == 5000
