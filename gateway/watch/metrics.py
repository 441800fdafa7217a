"""What this process counts for Prometheus. Labels are names of the configuration, never a patient's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from gateway import spans
from gateway.jobs.outcomes import Observer
from gateway.jobs.records import Job
from gateway.jobs.states import State

disable_created_metrics()  # type: ignore[no-untyped-call]

_LONG = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 1800)

_steps = Histogram("gateway_step_seconds", "How long a step works", ["application", "state"], buckets=_LONG)
_entered = Counter("gateway_jobs_entered_total", "Jobs that entered a state", ["application", "state"])
_retried = Counter(
    "gateway_retries_total", "Steps that failed and will be tried again", ["application", "state"]
)
_ended = Counter("gateway_jobs_ended_total", "Jobs done, failed, held or cancelled", ["application", "state"])
_took = Histogram("gateway_job_seconds", "From acceptance to done", ["application"], buckets=_LONG)
canary_ok = Gauge("gateway_canary_ok", "Whether the last canary came back from the vendor", ["adapter"])
canary_took = Gauge("gateway_canary_seconds", "How long the last canary took that came back", ["adapter"])
canary_last = Gauge(
    "gateway_canary_last_success_timestamp_seconds", "When a canary last came back", ["adapter"]
)
_wrong_tokens = Counter("gateway_wrong_tokens_total", "Calls with a token that lets nobody in", ["door"])
_untold = Counter(
    "gateway_alert_channel_failures_total", "Alerts that a channel of this process couldn't tell", ["channel"]
)
_mute = Gauge("gateway_alert_channel_failing", "Whether its last alert couldn't be told", ["channel"])

_audit_sent = Counter(
    "gateway_audit_messages_sent_total", "Messages that the audit collector has taken of this process"
)
_spans_sent = Counter("gateway_spans_sent_total", "Spans that the collector of traces has taken")
_spans_lost = Counter("gateway_spans_lost_total", "Spans that no collector of traces took in time")


class JobMetrics(Observer):
    @contextmanager
    def step(self, job: Job) -> Iterator[None]:
        began = time.monotonic()
        with spans.step(job.id, f"step {job.state.value}", {**_named(job), "gateway.attempt": job.attempt}):
            try:
                yield
            finally:
                _steps.labels(job.application, job.state.value).observe(time.monotonic() - began)
        if job.state == State.CANCELLED and job.attempt == 1:  # whoever cancelled it
            spans.end_job(job.id, job.created_at, {**_named(job), "gateway.ended": "cancelled"})

    def entered(self, job: Job, state: str) -> None:
        _entered.labels(job.application, state).inc()

    def retried(self, job: Job, kind: str) -> None:
        _retried.labels(job.application, job.state.value).inc()
        spans.fail(kind)

    def ended(self, job: Job, state: str) -> None:
        _ended.labels(job.application, state).inc()
        if state == State.DONE:
            _took.labels(job.application).observe((datetime.now(UTC) - job.created_at).total_seconds())
        if state in (State.HELD, State.FAILED):
            spans.fail(state)
        if state in (State.DONE, State.FAILED):
            failed = "" if state == State.DONE else state
            spans.end_job(job.id, job.created_at, {**_named(job), "gateway.ended": state}, failed)


def _named(job: Job) -> dict[str, str | int]:
    return {
        "gateway.job": str(job.id),
        "gateway.department": job.department,
        "gateway.application": job.application,
        "gateway.adapter": job.adapter,
    }


def delivery_retried(application: str) -> None:
    _retried.labels(application, "delivering").inc()


def count_wrong_token(door: str) -> None:
    _wrong_tokens.labels(door).inc()


def count_channel_failure(channel: str) -> None:
    _untold.labels(channel).inc()


def channel_failing(channel: str, is_failing: bool) -> None:
    _mute.labels(channel).set(is_failing)


def count_audit_messages(number: int) -> None:
    _audit_sent.inc(number)


def count_spans(sent: int = 0, lost: int = 0) -> None:
    _spans_sent.inc(sent)
    _spans_lost.inc(lost)
