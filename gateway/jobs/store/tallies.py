"""What became of jobs, counted day by day as their events are followed: no count takes longer with the jobs
there are, and none changes when they are purged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import RowMapping, and_, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import CORRECTED, Origin
from gateway.jobs.store.database import Database
from gateway.jobs.store.reading import HORIZON
from gateway.jobs.tables import REAL, followed, grants, job_events, jobs, slide_results, tallies, verdicts

_NAME = "tallies"
_AT_ONCE = 1000
COUNTED = or_(
    and_(job_events.c.state == "delivering", job_events.c.detail.has_key("took")),
    and_(job_events.c.state == "failed", job_events.c.what == "failed"),
    and_(job_events.c.state == "cancelled", job_events.c.what == "ignored"),
)

Key = tuple[str, str, date, str]


@dataclass(frozen=True, slots=True)
class Tally:
    application: str
    version: str
    day: date
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Total:
    application: str
    version: str
    what: str
    count: int
    first_day: date
    last_day: date


class Tallies(Database):
    async def tally(self) -> int:
        """Count what happened since it was last counted, whoever did that; returns how many events there
        were. An event is counted once: with the place up to which they are."""
        async with self._transaction() as connection:
            place = await self._place(connection)
            if place is None:
                return 0
            at = tuple_(job_events.c.transaction, job_events.c.id)
            seen = (
                select(job_events.c.transaction, job_events.c.id)
                .where(at > place, job_events.c.transaction < HORIZON)
                .order_by(job_events.c.transaction, job_events.c.id)
                .limit(_AT_ONCE)
            )
            passed = (await connection.execute(seen)).all()
            if not passed:
                return 0
            last = tuple(passed[-1])
            statement = (
                select(
                    *(jobs.c.application, jobs.c.vendor_version, job_events.c.state),
                    *(job_events.c.at, job_events.c.what, job_events.c.detail),
                )
                .join(jobs, jobs.c.id == job_events.c.job_id)
                .where(at > place, at <= last, COUNTED, REAL)
                .order_by(job_events.c.at)
            )
            counted: Counter[Key] = Counter()
            latest: dict[str, str] = {}
            for row in (await connection.execute(statement)).mappings().all():
                application, day = row["application"], row["at"].astimezone().date()
                if row["vendor_version"]:
                    latest[application] = row["vendor_version"]
                elif application not in latest:
                    latest[application] = await self._latest(connection, application)
                for what in _words(row):
                    counted[application, latest[application], day, what] += 1
            await self._add(connection, counted)
            await connection.execute(
                update(followed).where(followed.c.name == _NAME).values(transaction=last[0], event=last[1])
            )
            return len(passed)

    async def _place(self, connection: AsyncConnection) -> tuple[int, int] | None:
        """None: another replica counts, or it begins now."""
        known = select(followed.c.transaction, followed.c.event).where(followed.c.name == _NAME)
        row = (await connection.execute(known.with_for_update(skip_locked=True))).first()
        if row is not None:
            return row[0], row[1]
        begins = upsert(followed).values(name=_NAME, transaction=HORIZON, event=0)
        await connection.execute(begins.on_conflict_do_nothing())
        return None

    async def _latest(self, connection: AsyncConnection, application: str) -> str:
        """The version last seen of its vendor: whose failures name none are taken to be its."""
        statement = (
            select(tallies.c.version)
            .where(tallies.c.application == application, tallies.c.version != "")
            .order_by(tallies.c.day.desc())
            .limit(1)
        )
        return await connection.scalar(statement) or ""

    async def _add(self, connection: AsyncConnection, counted: Counter[Key]) -> None:
        for (application, version, day, what), count in sorted(counted.items()):
            new = upsert(tallies).values(
                application=application, version=version, day=day, what=what, count=count
            )
            await connection.execute(
                new.on_conflict_do_update(
                    index_elements=["application", "version", "day", "what"],
                    set_={"count": tallies.c.count + new.excluded.count},
                )
            )

    async def remember(self, told: Iterable[Tally]) -> None:
        """Counts of days that nobody followed here."""
        counted = Counter(
            {(each.application, each.version, each.day, each.what): each.count for each in told}
        )
        async with self._transaction() as connection:
            await self._add(connection, counted)

    async def tallies(self, since: date, applications: Collection[str] = ()) -> list[Tally]:
        """A day's counts come together: to read row by row takes many times as long."""
        day = tallies.c.application, tallies.c.version, tallies.c.day
        counts = func.jsonb_object_agg(tallies.c.what, tallies.c.count)
        statement = select(*day, counts).where(tallies.c.day >= since).group_by(*day).order_by(*day)
        if applications:
            statement = statement.where(tallies.c.application.in_(applications))
        async with self._single.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return [Tally(*row[:3], what, count) for row in rows for what, count in row[3].items()]

    async def totals(self, since: date) -> list[Total]:
        """Of each version, without how long its results took."""
        statement = (
            select(
                *(tallies.c.application, tallies.c.version, tallies.c.what),
                *(func.sum(tallies.c.count), func.min(tallies.c.day), func.max(tallies.c.day)),
            )
            .where(tallies.c.day >= since, tallies.c.what.not_like("took:%"))
            .group_by(tallies.c.application, tallies.c.version, tallies.c.what)
        )
        async with self._single.connect() as connection:
            return [
                Total(*row[:3], int(row[3]), *row[4:]) for row in (await connection.execute(statement)).all()
            ]

    async def count_verdict(
        self, server: str, application: str, result_id: int, what: str, at: datetime
    ) -> None:
        """A user changed or deleted that result: its job says so each time, and counts it once, for the
        version that made it."""
        ours = select(slide_results.c.result_of).where(
            slide_results.c.server == server,
            slide_results.c.application == application,
            slide_results.c.result_id == result_id,
        )
        theirs = select(grants.c.job_id).where(
            grants.c.server == server,
            grants.c.application == application,
            grants.c.results.has_key(str(result_id)),
        )
        async with self._transaction() as connection:
            job_id = await connection.scalar(ours.limit(1)) or await connection.scalar(theirs.limit(1))
            job = None if job_id is None else await self._locked(connection, job_id)
            if job is None:
                return
            await self._append(connection, job, CORRECTED[what], {"by": Origin.SECTRA, "result": result_id})
            new = upsert(verdicts).values(job_id=job.id, what=what).on_conflict_do_nothing()
            if await connection.scalar(new.returning(verdicts.c.job_id)) is None:
                return
            day = at.astimezone().date()
            await self._add(connection, Counter({(application, job.vendor_version or "", day, what): 1}))


def _words(row: RowMapping) -> list[str]:
    detail: dict[str, Any] = row["detail"]
    if row["state"] == "failed":
        return ["unsuitable" if detail.get("unsuitable") else "failed"]
    if row["state"] == "cancelled":
        return ["unsuitable"]
    said = ["result", f"took:{detail['took']}"]
    return said + [word for word in ("positive", "empty") if detail.get(word)]
