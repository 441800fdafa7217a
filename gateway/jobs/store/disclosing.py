"""Which jobs were about a patient, for whoever has to tell him what was done with his data.

Patients' ids lie encrypted, each otherwise even where two are the same: so each is read and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select

from gateway.jobs.cipher import Unreadable
from gateway.jobs.records import Job
from gateway.jobs.store.database import LISTED, Database
from gateway.jobs.tables import audit, grants, instances, job_keys, jobs

REPORTED = "disclosures reported"
_PAGE = 2000


@dataclass(slots=True)
class Found:
    """`unnamed` never told whose they were; `unreadable` were stored with a key that is gone."""

    jobs: list[Job] = field(default_factory=list)
    compared: int = 0
    purged: int = 0
    unnamed: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """Instances of a SOP class that a vendor was sent."""

    sop_class: str
    count: int
    acknowledged: int
    bytes: int


class Disclosing(Database):
    async def find_patient(self, patient_id: str) -> Found:
        """The oldest job first. Jobs of a study that is known to be the patient's count, too."""
        wanted, found = patient_id.strip(), Found()
        theirs: set[UUID] = set()
        unnamed: dict[UUID, str | None] = {}
        studies: set[str] = set()
        last: UUID | None = None
        while page := await self._page(last):
            last = page[-1].id
            for row in page:
                if row.purged_at is not None:
                    found.purged += 1
                elif row.patient_id is None:
                    unnamed[row.id] = row.study_instance_uid
                else:
                    found.compared += 1
                    try:
                        same = str(self._cipher.decrypt(row.patient_id)).strip() == wanted
                    except Unreadable:
                        found.unreadable += 1
                        continue
                    if same:
                        theirs.add(row.id)
                        studies |= {row.study_instance_uid} - {None}
        theirs |= {job_id for job_id, study in unnamed.items() if study in studies}
        found.unnamed = len(unnamed.keys() - theirs)
        found.jobs = await self._jobs_of(theirs)
        return found

    async def _page(self, after: UUID | None) -> Sequence[Any]:
        columns = [jobs.c[name] for name in ("id", "patient_id", "study_instance_uid", "purged_at")]
        statement = select(*columns).where(jobs.c.canary.is_(False)).order_by(jobs.c.id).limit(_PAGE)
        if after is not None:
            statement = statement.where(jobs.c.id > after)
        async with self._single.connect() as connection:
            return (await connection.execute(statement)).all()

    async def _jobs_of(self, ids: Collection[UUID]) -> list[Job]:
        statement = select(*LISTED).where(jobs.c.id.in_(ids)).order_by(jobs.c.created_at, jobs.c.id)
        async with self._single.connect() as connection:
            return [self._job(row) for row in (await connection.execute(statement)).mappings()]

    async def sent_to_vendor(self, job_id: UUID) -> list[Sent]:
        statement = (
            select(
                func.coalesce(instances.c.sop_class_uid, ""),
                func.count(),
                func.count().filter(instances.c.acknowledged),
                func.coalesce(func.sum(instances.c.bytes), 0),
            )
            .where(instances.c.job_id == job_id, instances.c.sent)
            .group_by(instances.c.sop_class_uid)
            .order_by(instances.c.sop_class_uid)
        )
        async with self._single.connect() as connection:
            return [Sent(row[0], row[1], row[2], int(row[3])) for row in await connection.execute(statement)]

    async def went_under_pseudonyms(self, job_id: UUID) -> bool:
        statement = select(job_keys.c.job_id).where(job_keys.c.job_id == job_id)
        async with self._single.connect() as connection:
            return await connection.scalar(statement) is not None

    async def calls_for(self, job_id: UUID) -> int:
        """How often a vendor that reads slides itself has asked for something."""
        statement = select(grants.c.calls).where(grants.c.job_id == job_id)
        async with self._single.connect() as connection:
            return int(await connection.scalar(statement) or 0)

    async def note_reported(self, told: Collection[Job], who: str) -> None:
        """In the audit, job by job; whose they are, no line says. Nothing found is an act as well."""
        rows = [{"who": who, "what": REPORTED, "job_id": job.id, "detail": {}} for job in told]
        nothing = [{"who": who, "what": REPORTED, "job_id": None, "detail": {"jobs": 0}}]
        async with self._transaction() as connection:
            await connection.execute(insert(audit), rows or nothing)
