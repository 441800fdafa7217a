"""What jobs would have become under another configuration, beside what they became."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import yaml

from gateway.archives.lookup import Lookup
from gateway.contract import Unsuitable
from gateway.jobs.records import Event, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.sectra.servers import SectraServers
from gateway.settings.sections import Application, Settings
from gateway.work import results
from gateway.work.consequences import decide, destinations_of
from gateway.work.foresight import Foreseen, Foresight, Subject
from gateway.work.steps import IGNORED
from gateway.work.study_way import UNTIL, URGENT

_REVISIONS = 500
_HOURS = "outside of"  # says an event
_AT_VENDOR = (State.SUBMITTING, State.ANALYSING, State.DELIVERING, State.DONE)
_SENT, _IGNORED, _FAILED, _HELD, _WAITS = "sent", "ignored", "failed", "held", "waits"


class Fate(NamedTuple):
    kind: str
    why: str = ""

    @property
    def said(self) -> str:
        return f"{self.kind}: {self.why}" if self.why else self.kind


class Difference(NamedTuple):
    what: str
    was: str
    would: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """`undecided`: why it can't be known any more what would become of it."""

    job: Job
    differences: tuple[Difference, ...] = ()
    undecided: str = ""


class Hindsight:
    """`settings`: the other configuration, which `foresight` and the rest are made of."""

    def __init__(
        self, settings: Settings, store: Store, servers: SectraServers, lookup: Lookup, foresight: Foresight
    ) -> None:
        self._settings = settings
        self._store = store
        self._servers = servers
        self._lookup = lookup
        self._foresight = foresight
        self._priorities: dict[str, Mapping[str, int]] | None = None  # of applications, by revision

    async def replay(self, job_id: UUID) -> Replayed | None:
        """None: there is no such job any more."""
        job = await self._store.get(job_id)
        if job is None:
            return None
        if job.purged_at is not None:
            gone = f"what it was about was removed on {job.purged_at.astimezone():%F} (keep_days)"
            return Replayed(job, undecided=gone)
        refused = self._refused(job)
        if refused is not None:
            return Replayed(job, (refused,))
        found = self._settings.application(job.application)
        assert found is not None
        department, application = found
        priority = await self._priority(job, application)
        told = [
            Difference("department", job.department, department),
            Difference("adapter", job.adapter, application.adapter),
            Difference("priority", str(job.priority), str(priority)),
        ]
        foreseen = await self._foresight.foresee(application, Subject.of(job, self._servers), priority)
        undecided = self._why_undecided(job, foreseen)
        if not undecided:
            told += await self._compare(job, application, priority, foreseen)
        return Replayed(job, tuple(each for each in told if each.was != each.would), undecided)

    def _refused(self, job: Job) -> Difference | None:
        """It would never have come to be a job."""
        if self._settings.application(job.application) is None:
            return Difference("application", job.application, "refused: there is none of this name")
        if job.callback_url is not None and self._servers.name_of(job.callback_url) is None:
            return Difference("callbacks", f"to {job.server}", "refused: no configured Sectra server")
        return None

    def _why_undecided(self, job: Job, foreseen: Foreseen) -> str:
        if foreseen.untold:
            return foreseen.why
        if job.unreadable:
            return "what identifies its patient was stored with a key that isn't among secret_keys"
        if (
            job.origin is Origin.SENT
            and foreseen.would == "fail"
            and not isinstance(foreseen.failure, Unsuitable)
        ):
            return "the files that came with it are gone, and no archive has the study"
        return ""

    async def _priority(self, job: Job, application: Application) -> int:
        """Who asks by REST may name one, which is his."""
        if job.origin is not Origin.REST:
            return application.priority
        if self._priorities is None:
            known = await self._store.revisions(limit=_REVISIONS)
            self._priorities = {each.revision: _priorities_in(each.text) for each in known}
        before = self._priorities.get(job.revision or "", {}).get(job.application)
        return application.priority if before == job.priority else job.priority

    # -- what became of it, and what would ------------------------------------------------------------

    async def _compare(
        self, job: Job, application: Application, priority: int, foreseen: Foreseen
    ) -> list[Difference]:
        was, would = _became(job), await self._would_become(job, application, foreseen)
        if was is None or (was.kind == _WAITS and would.kind == _SENT):
            return []
        if was.kind != would.kind:
            return [Difference("outcome", was.said, would.said)]
        if would.kind != _SENT:
            return []
        told = await self._compare_ways(job, priority, foreseen)
        if job.adapter == application.adapter:
            told += await self._compare_results(job, application)
        deliveries = await self._store.deliveries_of(job.id)
        if deliveries and (job.result is not None or not application.when):
            found = () if job.result is None else results.from_json(job.result, Path()).findings
            names = set(destinations_of(application, job, decide(application.when, found)))
            was_to = {each.destination for each in deliveries}
            told.append(Difference("delivered to", _listed(was_to), _listed(names)))
        return told

    async def _would_become(self, job: Job, application: Application, foreseen: Foreseen) -> Fate:
        if foreseen.would == "be held for a person":
            return Fate(_HELD, foreseen.why)
        if foreseen.would == "fail":
            ignored = job.origin is Origin.NOTIFICATION and isinstance(foreseen.failure, Unsuitable)
            return Fate(_IGNORED if ignored else _FAILED, foreseen.why)
        most = application.accept.max_bytes
        if most is not None and foreseen.found is not None:
            sizes = {
                each.sop_instance_uid: each.bytes or 0 for each in await self._store.instances_of(job.id)
            }
            sent = sum(sizes.get(each.sop_instance_uid, 0) for each in foreseen.found.instances)
            if sent > most:
                return Fate(_FAILED, f"the study is larger than this application accepts ({most / 1e9:g} GB)")
        return Fate(_SENT)

    async def _compare_ways(self, job: Job, priority: int, foreseen: Foreseen) -> list[Difference]:
        if foreseen.archive is None or job.archive is None:
            return []
        told = [Difference("archive", job.archive, foreseen.archive)]
        opens = self._lookup.opens_at(foreseen.archive, urgent=priority >= URGENT, now=job.created_at)
        had_to_wait = any(
            event.what.startswith(UNTIL) and _HOURS in event.what
            for event in await self._store.events_of(job.id)
        )
        if had_to_wait != (opens is not None):
            until = "" if opens is None else f" until {opens.astimezone():%F %H:%M}"
            words = {True: f"waits for the hours of {foreseen.archive}{until}", False: "at once"}
            told.append(Difference("fetched", words[had_to_wait], words[opens is not None]))
        if foreseen.found is None:
            return told
        before = {each.sop_instance_uid for each in await self._store.instances_of(job.id)}
        now = {each.sop_instance_uid for each in foreseen.found.instances}
        if before and before != now:
            left_out = ", ".join(f"{count} {why}" for why, count in sorted(foreseen.found.left_out.items()))
            others = f"{len(now)}, {len(now - before)} of them others" if now - before else str(len(now))
            would = f"{others} (left out: {left_out})" if left_out else others
            told.append(Difference("instances", str(len(before)), would))
        return told

    async def _compare_results(self, job: Job, application: Application) -> list[Difference]:
        """Of the same vendor: it would have answered the same, after the same time."""
        took = _took(await self._store.events_of(job.id))
        if took is None:
            return []
        was = f"after {took:.0f} s"
        if took > application.result_within:
            within = f"held: no result within {application.result_within:g} s"
            return [Difference("result", was, within)]
        register = application.register_
        version = job.vendor_version
        if register is None or not register.strict or version in (None, "", register.version):
            return []
        return [
            Difference("result", f"of version {version}", f"held: {register.version} is the accepted one")
        ]


def _became(job: Job) -> Fate | None:
    """As far as a configuration decides; None: a person has ended it before."""
    at = job.held_in if job.state == State.HELD else job.state
    if job.ticket is not None or at in _AT_VENDOR:
        return Fate(_SENT)
    if job.state == State.CANCELLED:
        return Fate(_IGNORED, job.error_message or "") if job.error_kind == IGNORED else None
    if job.state in (State.FAILED, State.HELD):
        return Fate(_FAILED if job.state == State.FAILED else _HELD, job.error_message or "")
    return Fate(_WAITS, job.waits_why or "")


def _took(events: Sequence[Event]) -> float | None:
    """Seconds until the vendor's last result was there."""
    began: datetime | None = None
    took: float | None = None
    for event in events:
        if event.state == State.SUBMITTING:
            began, took = None, None
        elif event.state == State.ANALYSING and began is None:
            began = event.at
        elif event.state == State.DELIVERING and began is not None and took is None:
            took = (event.at - began).total_seconds()
    return took


def _priorities_in(text: str) -> dict[str, int]:
    """Of the applications in a configuration as it is kept."""
    departments = (yaml.safe_load(text) or {}).get("departments") or {}
    return {
        name: application.get("priority", 0)
        for department in departments.values()
        for name, application in (department.get("applications") or {}).items()
    }


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
