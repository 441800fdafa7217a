"""What an application's vendor and one that is tried beside it made of the same studies: by which jobs they
were asked, and what came of both. Figures stay when the jobs are purged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Uuid, any_, delete, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import NewJob
from gateway.jobs.states import FINAL, State
from gateway.jobs.store.accepting import Accepting
from gateway.jobs.store.reading import HORIZON
from gateway.jobs.store.tallies import COUNTED
from gateway.jobs.tables import REAL, followed, job_events, jobs, shadows

_NAME = "shadows"
_AT_ONCE = 1000
_STOPPED = [state.value for state in (*FINAL, State.HELD)]


class Uncompared(NamedTuple):
    """A shadow's job that has ended or is held, and the one it is the shadow of."""

    job_id: UUID
    of: UUID


@dataclass(frozen=True, slots=True)
class Made:
    """What came of one of both. `seconds`: from when the study began to leave until the result was there."""

    outcome: str
    version: str | None = None
    seconds: float | None = None
    found: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One study. Without an `outcome` its shadow is still on its way."""

    application: str
    shadow: str
    job_id: UUID
    of: UUID
    began_at: datetime
    own_outcome: str | None
    own_version: str | None
    own_seconds: float | None
    own_found: Sequence[str]
    outcome: str | None
    version: str | None
    seconds: float | None
    found: Sequence[str]


class Shadows(Accepting):
    async def ended_beside(self, applications: Collection[str]) -> tuple[list[UUID], tuple[int, int] | None]:
        """The jobs of these applications that their vendor was done with since it was last looked, and up to
        where that is; the first time none."""
        async with self._transaction() as connection:
            known = select(followed.c.transaction, followed.c.event).where(followed.c.name == _NAME)
            row = (await connection.execute(known)).first()
            if row is None:
                begins = upsert(followed).values(name=_NAME, transaction=HORIZON, event=0)
                await connection.execute(begins.on_conflict_do_nothing())
                return [], None
            at = tuple_(job_events.c.transaction, job_events.c.id)
            order = job_events.c.transaction, job_events.c.id
            after = at > tuple(row), job_events.c.transaction < HORIZON
            passed = (
                await connection.execute(select(*order).where(*after).order_by(*order).limit(_AT_ONCE))
            ).all()
            if not passed:
                return [], None
            last = tuple(passed[-1])
            statement = (
                select(jobs.c.id)
                .join(job_events, jobs.c.id == job_events.c.job_id)
                .where(at > tuple(row), at <= last, COUNTED, REAL)
                .where(jobs.c.application.in_(list(applications)), jobs.c.submit_began)
                .order_by(*order)
            )
            return list(dict.fromkeys(await connection.scalars(statement))), (last[0], last[1])

    async def shadows_begun(self, last: tuple[int, int]) -> None:
        """Those of all events up to there."""
        at = tuple_(followed.c.transaction, followed.c.event)
        statement = update(followed).where(followed.c.name == _NAME, at < last)
        async with self._single.connect() as connection:
            await connection.execute(statement.values(transaction=last[0], event=last[1]))

    async def end_shadows(self) -> None:
        """There are none any more: when there are again, what has ended meanwhile gets none."""
        async with self._single.connect() as connection:
            await connection.execute(delete(followed).where(followed.c.name == _NAME))

    async def begin_shadow(self, new: NewJob, of: UUID, application: str, shadow: str) -> bool:
        """Once, however often it is asked for. It takes the place of earlier pairs of the same study, which
        would count twice: that it is the same can't be told any more once those jobs are purged."""
        job, fresh = await self.create(new)
        values = {"job_id": job.id, "of": of, "application": application, "shadow": shadow}
        of_the_study = select(jobs.c.id).where(jobs.c.study_instance_uid == new.study_instance_uid)
        earlier = (
            shadows.c.of.in_(of_the_study),
            shadows.c.of != of,
            shadows.c.application == application,
            shadows.c.shadow == shadow,
        )
        async with self._transaction() as connection:
            await connection.execute(upsert(shadows).values(**values).on_conflict_do_nothing())
            if new.study_instance_uid is not None:
                await connection.execute(delete(shadows).where(*earlier))
        return fresh

    async def asked_by(self, caller: str) -> dict[str, UUID]:
        """The jobs that it asked for, by its own keys."""
        statement = select(jobs.c.idempotency_key, jobs.c.id).where(
            jobs.c.caller == caller, jobs.c.idempotency_key.is_not(None)
        )
        async with self._single.connect() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}

    async def states_of(self, job_ids: Collection[UUID]) -> Counter[State]:
        """How many of them are in each."""
        named = jobs.c.id == any_(literal(list(job_ids), ARRAY(Uuid)))
        statement = select(jobs.c.state, func.count()).where(named).group_by(jobs.c.state)
        async with self._single.connect() as connection:
            return Counter({State(row[0]): row[1] for row in await connection.execute(statement)})

    async def uncompared(self) -> list[Uncompared]:
        """Of held ones those alone of which it isn't told yet."""
        told = or_(jobs.c.state != State.HELD.value, shadows.c.outcome.is_(None))
        statement = (
            select(shadows.c.job_id, shadows.c.of)
            .join(jobs, jobs.c.id == shadows.c.job_id)
            .where(shadows.c.compared_at.is_(None), jobs.c.state.in_(_STOPPED), told)
            .order_by(shadows.c.began_at)
            .limit(_AT_ONCE)
        )
        async with self._single.connect() as connection:
            return [Uncompared(*row) for row in await connection.execute(statement)]

    async def compare(self, job_id: UUID, own: Made, tried: Made, *, final: bool) -> None:
        """`final`: it can't become another any more."""
        values: Mapping[str, Any] = {
            "own_outcome": own.outcome,
            "own_version": own.version,
            "own_seconds": own.seconds,
            "own_found": list(own.found),
            "outcome": tried.outcome,
            "version": tried.version,
            "seconds": tried.seconds,
            "found": list(tried.found),
            "compared_at": func.now() if final else None,
        }
        async with self._single.connect() as connection:
            await connection.execute(update(shadows).where(shadows.c.job_id == job_id).values(**values))

    async def pairs(self, application: str, since: datetime, most: int | None = None) -> list[Pair]:
        """The newest first."""
        statement = (
            select(*(shadows.c[f.name] for f in fields(Pair)))
            .where(shadows.c.application == application, shadows.c.began_at >= since)
            .order_by(shadows.c.began_at.desc(), shadows.c.job_id)
            .limit(most)
        )
        async with self._single.connect() as connection:
            return [Pair(**row) for row in (await connection.execute(statement)).mappings()]
