"""What an archive has and nobody has processed: studies of the last hours that an application would have
accepted, as it would an arrival, and that no job was ever about.

Looked for once a day by one replica, noted for all, alerted once; started only when a person says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import structlog

from gateway.archives.dicomweb import DicomwebArchive, ListedStudy
from gateway.archives.lookup import Lookup, NotYet, Wanted
from gateway.contract import Failure, Unreachable
from gateway.dicom.identity import Identity
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.store import Store
from gateway.jobs.store.reconciling import Unprocessed
from gateway.loops import Loop
from gateway.settings.sections import Application, Settings
from gateway.settings.watching import Reconcile

log = structlog.get_logger(__name__)

CALLER = "reconcile"  # whose idempotency keys the studies are
_LOOK = 60.0
_MAY_TAKE = 1800.0
_MOST = 2000  # studies of an application that are looked into at a time
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Compared:
    """`unclear`: studies of which the archive didn't tell enough."""

    application: str
    archive: str
    listed: int
    missing: tuple[str, ...]
    unclear: int


class Reconciliation:
    """`sent_studies`: whether the application's vendor is sent studies at all."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        lookup: Lookup,
        archives: Mapping[str, DicomwebArchive],
        sent_studies: Callable[[Application], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._store = store
        self._lookup = lookup
        self._archives = archives
        self._sent_studies = sent_studies
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled; at once if there is nothing to compare."""
        if self._settings.reconcile:
            await Loop("reconcile").run(self.look, pause=_LOOK)

    async def look(self) -> None:
        for plan in self._settings.reconcile:
            name = f"reconcile {plan.archive} {plan.at:%H:%M}"
            if await self._store.take_round(name, last_due(plan.at, self._clock()), _MAY_TAKE):
                await self.compare(plan)
                await self._store.finish_round(name)
        await self._tell()

    async def _tell(self) -> None:
        missing: dict[str, list[Unprocessed]] = {plan.archive: [] for plan in self._settings.reconcile}
        for each in await self._store.unprocessed():
            missing.setdefault(each.archive, []).append(each)
        for archive, studies in missing.items():
            cause = f"reconcile.{archive}"
            if not studies:
                await self._store.clear_alert(cause)
                continue
            names = ", ".join(sorted({each.application for each in studies}))
            count = f"{len(studies)} studies" if len(studies) > 1 else "a study"
            sentence = f"{count} in {archive} that {names} would have accepted were never processed"
            advice = "See why they never came; gateway reconcile lists them, and with --start starts them."
            await self._store.raise_alert(cause, sentence, advice)

    async def compare_all(self) -> list[Compared]:
        return [compared for plan in self._settings.reconcile for compared in await self.compare(plan)]

    async def compare(self, plan: Reconcile) -> list[Compared]:
        """Notes what is missing. Raises what the archive said, if it can't be asked."""
        now = self._clock().astimezone()
        since, until = now - timedelta(seconds=plan.since), now - timedelta(seconds=plan.settle)
        listed = [
            study
            for study in await self._archives[plan.archive].list_studies(since.date(), until.date())
            if since <= _moment(study, until) <= until
        ]
        compared = []
        for name, application in self._meant(plan).items():
            done = await self._compare(plan.archive, name, application, listed)
            await self._store.note_unprocessed(name, plan.archive, done.missing)
            compared.append(done)
            log.info(
                "an archive was compared",
                archive=plan.archive,
                application=name,
                studies=done.listed,
                missing=len(done.missing),
                unclear=done.unclear,
            )
        told = {each.application: len(each.missing) for each in compared}
        detail = {"archive": plan.archive, "studies": len(listed), "missing": told}
        await self._store.note_in_audit("gateway", "archive compared", detail)
        return compared

    def _meant(self, plan: Reconcile) -> dict[str, Application]:
        return {
            name: application
            for name, application in self._settings.applications.items()
            if self._sent_studies(application)
            and (
                name in plan.applications or (not plan.applications and plan.archive in application.archives)
            )
        }

    async def _compare(
        self, archive: str, name: str, application: Application, listed: list[ListedStudy]
    ) -> Compared:
        accepted = set(application.accept.modalities)
        fitting = {
            study.study_instance_uid
            for study in listed
            if not (accepted and study.modalities) or accepted.intersection(study.modalities)
        }
        fresh = sorted(fitting - await self._store.processed_among(name, fitting))
        missing, unclear = [], len(fresh[_MOST:])
        for study in fresh[:_MOST]:
            try:
                if await self._would_be_accepted(archive, application, study):
                    missing.append(study)
            except Unreachable:
                raise
            except (Failure, NotYet):
                unclear += 1
        return Compared(name, archive, len(fitting), tuple(missing), unclear)

    async def _would_be_accepted(self, archive: str, application: Application, study: str) -> bool:
        wanted = Wanted(Identity(study), application.accept.modalities, application.choose, urgent=True)
        found = await self._lookup.find([archive], wanted, self._store.results_among)
        if found.instances:
            await self._lookup.give_back(found)
        return bool(found.instances)


def last_due(at: time, now: datetime) -> datetime:
    """When that time of day was last, by the clock on the wall."""
    here = now.astimezone()
    due = datetime.combine(here.date(), at).astimezone()
    return due if due <= here else datetime.combine(here.date() - _DAY, at).astimezone()


def _moment(study: ListedStudy, otherwise: datetime) -> datetime:
    """When it was made, as far as the archive tells."""
    if study.day is None or study.clock is None:
        return otherwise
    return datetime.combine(study.day, study.clock).astimezone()


async def start(settings: Settings, store: Store, who: str) -> list[str]:
    """The jobs of all studies that are noted, as if they had just arrived; the same study is never begun
    twice, whoever says so at the same time."""
    begun: list[str] = []
    for each in await store.unprocessed():
        found = settings.application(each.application)
        if found is None:
            continue
        department, application = found
        new = NewJob(
            department=department,
            application=each.application,
            adapter=application.adapter,
            origin=Origin.NOTIFICATION,
            priority=application.priority,
            study_instance_uid=each.study_instance_uid,
            caller=CALLER,
            idempotency_key=f"{each.application}/{each.study_instance_uid}",
        )
        job, fresh = await store.create(new)
        if fresh:
            begun.append(str(job.id))
    if begun:
        await store.note_in_audit(who, "unprocessed studies started", {"jobs": begun})
    return begun
