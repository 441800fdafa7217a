"""What all replicas know of the peers that are away or refuse us: whose circuit is open, and who looks
whether it is back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import storable
from gateway.jobs.store.alerts import IS_NEWS_AFTER, cleared
from gateway.jobs.store.database import Database, Standing, soon
from gateway.jobs.tables import REAL, alerts, circuits, deliveries, jobs, pauses

_QUOTA_IS_NEWS_AFTER = 600.0  # one by the minute comes and goes
_AGAIN_WITHIN = timedelta(minutes=10)  # one that opens again so soon is given more time


@dataclass(frozen=True, slots=True)
class Circuit:
    """`number` fences: whoever closes it has to know of its last opening."""

    peer: str
    state: str
    number: int
    kind: str | None
    manner: str | None
    since: datetime
    reason: str | None
    advice: str | None
    failures: int
    refusals: int
    probes: int
    next_probe_at: datetime | None
    prober: str | None
    trial_job: UUID | None
    succeeded_at: datetime | None
    certificate_expires: datetime | None
    due: bool  # to be looked at

    @property
    def is_open(self) -> bool:
        return self.state == "open"

    @property
    def is_storm(self) -> bool:
        """It says that it is well whenever it is asked: what closes it is a job that gets through."""
        return self.kind == "failing" and self.failures > 0


_NO_STORM = {"failures": 0, "jobs_met": 0, "last_job": None}
_DUE = and_(
    circuits.c.state == "open",
    circuits.c.next_probe_at <= func.now(),
    func.coalesce(circuits.c.probing_until <= func.now(), True),
)
_CIRCUITS = Standing(
    select(*(func.coalesce(_DUE, False) if f.name == "due" else circuits.c[f.name] for f in fields(Circuit)))
)


class Circuits(Database):
    async def circuits(self) -> list[Circuit]:
        return [Circuit(*row) for row in await self._ask(_CIRCUITS)]

    # -- opening and closing --------------------------------------------------------------------------

    async def trip(
        self,
        peer: str,
        kind: str,
        sentence: str,
        reason: str,
        advice: str,
        *,
        first: float,
        most: float,
        refused: int = 0,
        manner: str = "",
        is_storm: bool = False,
        told: str | None = None,
    ) -> bool:
        """Whether the circuit wasn't open yet. With it, and once, goes the alert, whose advice is `told`."""
        lately = circuits.c.since > func.now() - _AGAIN_WITHIN
        grown = case((lately, func.least(most, func.greatest(first, 2 * circuits.c.pause))), else_=first)
        opened: dict[str, Any] = {
            "state": "open",
            "kind": kind,
            "manner": storable(manner),
            **({} if is_storm else _NO_STORM),
            "reason": storable(reason),
            "advice": storable(advice),
            "probes": 0,
            "prober": None,
            "probing_until": None,
            "trial_job": None,
        }
        fresh = {**opened, "number": 1, "pause": first, "next_probe_at": soon(first), "refusals": refused}
        again = {
            **opened,
            "number": circuits.c.number + 1,
            "since": func.now(),
            "pause": grown,
            "next_probe_at": func.now() + timedelta(seconds=1) * grown,
            "refusals": circuits.c.refusals + refused,
        }
        statement = (
            upsert(circuits)
            .values(peer=peer, **fresh)
            .on_conflict_do_update(index_elements=["peer"], set_=again, where=circuits.c.state == "closed")
            .returning(circuits.c.peer)
        )
        async with self._transaction() as connection:
            if await connection.scalar(statement) is None:
                return False
            await connection.execute(
                upsert(alerts)
                .values(
                    cause=peer,
                    sentence=storable(sentence),
                    advice=storable(advice if told is None else told),
                    next_try_at=soon(_QUOTA_IS_NEWS_AFTER if kind == "busy" else IS_NEWS_AFTER),
                )
                .on_conflict_do_nothing()
            )
            await self._wake(connection, f"peer {peer}")
            return True

    async def say_anew(
        self,
        peer: str,
        number: int,
        kind: str,
        manner: str,
        sentence: str,
        reason: str,
        advice: str,
        told: str,
    ) -> None:
        """It is ill otherwise than when it opened. Who was told of it isn't told again: it stands all the
        same, and a reminder will have the words of then."""
        now = {"kind": kind, "manner": storable(manner), **_NO_STORM}
        statement = (
            update(circuits)
            .where(circuits.c.peer == peer, circuits.c.number == number, circuits.c.state == "open")
            .values(**now, reason=storable(reason), advice=storable(advice))
            .returning(circuits.c.peer)
        )
        async with self._transaction() as connection:
            if await connection.scalar(statement) is None:
                return
            await connection.execute(
                update(alerts)
                .where(alerts.c.cause == peer, alerts.c.cleared_at.is_(None))
                .values(sentence=storable(sentence), advice=storable(told))
            )
            await self._wake(connection, f"peer {peer}")

    async def hold_off(self, peer: str, seconds: float, job_id: UUID | None) -> bool:
        """Whether it is open: then nobody tries it any sooner. `job_id`: it has tried."""
        another = circuits.c.trial_job.is_distinct_from(job_id)
        later = func.greatest(circuits.c.next_probe_at, soon(seconds))
        statement = (
            update(circuits)
            .where(circuits.c.peer == peer, circuits.c.state == "open")
            .values(
                next_probe_at=case((another, later), else_=soon(seconds)),
                pause=seconds,
                trial_job=case((another, circuits.c.trial_job), else_=None),
            )
            .returning(circuits.c.peer)
        )
        async with self._transaction() as connection:
            held = await connection.scalar(statement) is not None
            await self._wake(connection, f"peer {peer}")
            return held

    async def close_circuit(self, peer: str, number: int | None = None) -> bool:
        """Whether this closed it; `number` as it was when whoever closes it looked."""
        wanted = [circuits.c.peer == peer, circuits.c.state == "open"]
        if number is not None:
            wanted.append(circuits.c.number == number)
        values = {
            "state": "closed",
            "number": circuits.c.number + 1,
            "since": func.now(),
            "succeeded_at": func.now(),
            **_NO_STORM,
            "refusals": 0,
            "next_probe_at": None,
            "prober": None,
            "probing_until": None,
            "trial_job": None,
        }
        statement = update(circuits).where(*wanted).values(**values).returning(circuits.c.peer)
        async with self._transaction() as connection:
            if await connection.scalar(statement) is None:
                return False
            await connection.execute(
                update(alerts)
                .where(alerts.c.cause == peer, alerts.c.cleared_at.is_(None))
                .values(**cleared())
            )
            await self._wake(connection, f"peer {peer}")
            return True

    async def count_failure(self, peer: str, job_id: UUID | None) -> tuple[int, int]:
        """How many there were in a row, and how often another job than the one before met one."""
        another = circuits.c.last_job.is_distinct_from(job_id)
        statement = (
            upsert(circuits)
            .values(peer=peer, failures=1, jobs_met=1, last_job=job_id)
            .on_conflict_do_update(
                index_elements=["peer"],
                set_={
                    "failures": circuits.c.failures + 1,
                    "jobs_met": circuits.c.jobs_met + case((another, 1), else_=0),
                    "last_job": job_id,
                },
            )
            .returning(circuits.c.failures, circuits.c.jobs_met)
        )
        async with self._transaction() as connection:
            failures, jobs_met = (await connection.execute(statement)).one()
            return failures, jobs_met

    async def record_successes(self, when: Mapping[str, datetime]) -> None:
        """By peer, when it last answered as it should."""
        if not when:
            return
        values = [{"peer": peer, "succeeded_at": when[peer]} for peer in sorted(when)]
        statement = upsert(circuits).values(values)
        newer = func.greatest(circuits.c.succeeded_at, statement.excluded.succeeded_at)
        reset = {**_NO_STORM, "refusals": 0}
        async with self._transaction() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["peer"],
                    set_={
                        "succeeded_at": newer,
                        **{
                            name: case((circuits.c.state == "open", circuits.c[name]), else_=value)
                            for name, value in reset.items()
                        },
                    },
                )
            )

    # -- looking whether it is back -------------------------------------------------------------------

    async def take_probe(self, peer: str, number: int, who: str, seconds: float) -> bool:
        """The right to look, of one at a time. It lapses with the seconds, whatever becomes of its holder."""
        statement = (
            update(circuits)
            .where(
                circuits.c.peer == peer,
                circuits.c.number == number,
                circuits.c.state == "open",
                circuits.c.next_probe_at <= func.now(),
                func.coalesce(circuits.c.probing_until <= func.now(), True),
                ~select(pauses.c.peer).where(pauses.c.peer == peer).exists(),
            )
            .values(prober=who, probing_until=soon(seconds))
            .returning(circuits.c.peer)
        )
        async with self._transaction() as connection:
            return await connection.scalar(statement) is not None

    async def put_off(
        self, peer: str, number: int, who: str, *, most: float, refused: bool, trial: bool
    ) -> Circuit | None:
        """It isn't back: the next look is later than the last was. `trial`: one of its jobs goes through
        meanwhile. None: somebody else has the say by now."""
        fence = and_(circuits.c.peer == peer, circuits.c.number == number, circuits.c.prober == who)
        pause = func.least(most, 2 * circuits.c.pause)
        # With nothing but a canary nobody's work needs the vendor to be let alone.
        patients = select(jobs.c.id).where(jobs.c.waits_for == peer, REAL).exists()
        counts = case((or_(circuits.c.refusals > 0, patients), int(refused)), else_=0)
        async with self._transaction() as connection:
            job_id = await self._begin_trial(connection, peer) if trial else None
            statement = (
                update(circuits)
                .where(fence)
                .values(
                    prober=None,
                    probing_until=None,
                    probes=circuits.c.probes + 1,
                    refusals=circuits.c.refusals + counts,
                    pause=pause,
                    next_probe_at=func.now() + timedelta(seconds=1) * pause,
                    trial_job=job_id,
                )
                .returning(*(circuits.c[f.name] for f in fields(Circuit) if f.name != "due"))
            )
            row = (await connection.execute(statement)).mappings().first()
            if row is None:
                await connection.rollback()
                return None
            await self._wake(connection, f"peer {peer}")
            return Circuit(**row, due=False)

    async def _begin_trial(self, connection: AsyncConnection, peer: str) -> UUID | None:
        first = (
            select(jobs.c.id)
            .where(jobs.c.waits_for == peer, jobs.c.lease_holder.is_(None))
            # Who has a place at the vendor: others would wait for one that nobody gives back meanwhile. Then
            # each its turn: one may be the cause itself.
            .order_by(jobs.c.beside, jobs.c.at_vendor.desc(), jobs.c.updated_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        job_id: UUID | None = await connection.scalar(first)
        if job_id is not None:
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.job_id == job_id, deliveries.c.waits_for == peer)
                .values(waits_for=None, next_at=func.now())
            )
            await connection.execute(
                update(jobs).where(jobs.c.id == job_id).values(waits_for=None, next_at=func.now())
            )
        return job_id
