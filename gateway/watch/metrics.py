"""What is counted for Prometheus. Labels are names from the configuration, never a patient's data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from gateway.jobs.outcomes import Observer

_LONG = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 1800)

_steps = Histogram("gateway_step_seconds", "How long a step works", ["application", "state"], buckets=_LONG)
_entered = Counter("gateway_jobs_entered_total", "Jobs that entered a state", ["application", "state"])
_retried = Counter(
    "gateway_retries_total", "Steps that failed and will be tried again", ["application", "state"]
)
_ended = Counter("gateway_jobs_ended_total", "Jobs done, failed, held or cancelled", ["application", "state"])
_took = Histogram("gateway_job_seconds", "From acceptance to done", ["application"], buckets=_LONG)
living = Gauge("gateway_jobs", "Living jobs by state", ["application", "state"])


class JobMetrics(Observer):
    @contextmanager
    def step(self, application: str, state: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            _steps.labels(application, state).observe(time.monotonic() - began)

    def entered(self, application: str, state: str) -> None:
        _entered.labels(application, state).inc()

    def retried(self, application: str, state: str) -> None:
        _retried.labels(application, state).inc()

    def ended(self, application: str, state: str, created_at: datetime) -> None:
        _ended.labels(application, state).inc()
        if state == "done":
            _took.labels(application).observe((datetime.now(UTC) - created_at).total_seconds())


def delivery_retried(application: str) -> None:
    _retried.labels(application, "delivering").inc()
