"""After a sending that broke off: a vendor may not know at once what has arrived, or not have begun yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.contract import Adapter, Hesitating
from gateway.jobs.outcomes import Wait
from gateway.jobs.records import Job

_ASKED_AGAIN = "the vendor is asked again before anything is sent again"


def doubt(job: Job, adapter: Adapter) -> Wait | None:
    """For a while it is asked again, before more is sent. None: it is believed."""
    if not job.submit_began or not isinstance(adapter, Hesitating):
        return None
    now = datetime.now(UTC)
    until = job.doubted_until or now + timedelta(seconds=adapter.sure_after)
    if now >= until:
        return None
    return Wait(
        after=max(min((until - now).total_seconds(), adapter.sure_after / 4), min(1.0, adapter.sure_after)),
        what=_ASKED_AGAIN if job.doubted_until is None else None,
        why=_ASKED_AGAIN,
        values={"doubted_until": until, "attempt": job.attempt - 1},
    )
