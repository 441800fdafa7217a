"""What a page says of many jobs at once. Nothing here looks at all that ever ended: the living have indexes
of their own, and of the ended only the last day's are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
    union_all,
    within_group,
)
from sqlalchemy.dialects.postgresql import array

from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store.database import LISTED, Database
from gateway.jobs.store.reading import CAUSE, DOING, FAILING, Doing
from gateway.jobs.tables import ALIVE, REAL, alerts, deliveries, job_events, jobs

_MOST_CAUSES = 50
_MOST_FOUND = 50
_LATEST, _ENOUGH = 100, 5  # jobs that say what is usual
_HOUR: ColumnElement[str] = literal_column("'hour'")  # as a parameter it would be another expression


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Living jobs of one application: those that are held, wait for their turn, or are worked on."""

    application: str
    doing: Doing | None  # none: held
    jobs: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Hour:
    """What became of the jobs of one application that were asked for in an hour; `hour` is none for the whole
    time. Seconds from the request to the result."""

    application: str
    hour: datetime | None
    done: int
    done_today: int
    failed_today: int
    median: float | None
    slowest: float | None  # the 95th percentile


@dataclass(frozen=True, slots=True)
class Trouble:
    """Living jobs that met the same: `destination`, or else `cause`, finds them again."""

    state: str
    destination: str | None
    cause: str | None
    message: str
    advice: str | None
    jobs: int
    since: datetime
    next_at: datetime | None
    job: str | None  # one of them, where `cause` finds them
    choosing: bool  # whether a person is to choose a study for each


@dataclass(frozen=True, slots=True)
class Standing:
    """An alert that isn't over."""

    cause: str
    sentence: str
    advice: str
    since: datetime


class Overview(Database):
    async def tell_under_way(self) -> list[UnderWay]:
        doing = case(
            (jobs.c.state == State.HELD.value, null()),
            (DOING["working"], literal("working")),
            else_=literal("waiting"),
        ).label("doing")
        statement = (
            select(
                jobs.c.application,
                doing,
                func.count().label("jobs"),
                func.min(jobs.c.created_at).label("oldest"),
            )
            .where(ALIVE, REAL)
            .group_by(jobs.c.application, "doing")
        )
        async with self._single.connect() as connection:
            return [UnderWay(**row) for row in (await connection.execute(statement)).mappings()]

    async def tell_hours(
        self, applications: Sequence[str], since: datetime, midnight: datetime
    ) -> list[Hour]:
        """Of the jobs asked for since then, by hour and together."""
        hour = func.date_trunc(_HOUR, jobs.c.created_at)
        is_done = jobs.c.state == State.DONE.value
        today = jobs.c.created_at >= midnight
        seconds = func.extract("epoch", jobs.c.updated_at - jobs.c.created_at)
        cuts = within_group(func.percentile_cont(array([literal(0.5), literal(0.95)])), seconds)
        statement = (
            select(
                jobs.c.application,
                hour,
                func.count().filter(is_done),
                func.count().filter(and_(is_done, today)),
                func.count().filter(and_(jobs.c.state == State.FAILED.value, today)),
                cuts.filter(is_done),
            )
            .where(jobs.c.application.in_(applications), jobs.c.created_at >= since)
            .group_by(jobs.c.application, func.rollup(hour))
        )
        async with self._single.connect() as connection:
            return [Hour(*row[:5], *(row[5] or (None, None))) for row in await connection.execute(statement)]

    async def usual_seconds(self, application: str) -> float | None:
        """Half of its latest jobs were no longer at the vendor; none, if there are too few of them to say."""
        latest = (
            select(jobs.c.id)
            .where(jobs.c.application == application, REAL)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(_LATEST)
            .subquery()
        )
        came, ended = (
            func.min(job_events.c.at).filter(job_events.c.state == state.value)
            for state in (State.ANALYSING, State.DELIVERING)
        )
        took = (
            select(func.extract("epoch", ended - came).label("seconds"))
            .where(job_events.c.job_id.in_(select(latest.c.id)))
            .group_by(job_events.c.job_id)
            .subquery()
        )
        median = within_group(func.percentile_cont(0.5), took.c.seconds)
        async with self._single.connect() as connection:
            number, half = (await connection.execute(select(func.count(took.c.seconds), median))).one()
        return half if number >= _ENOUGH else None

    async def tell_troubles(self) -> list[Trouble]:
        """The most frequent first. Jobs that wait for a peer aren't among them: the peer is what is wrong."""
        of_jobs = (
            select(
                jobs.c.state,
                null().label("destination"),
                CAUSE.label("cause"),
                func.min(jobs.c.error_message).label("message"),
                func.min(jobs.c.error_advice).label("advice"),
                func.count().label("jobs"),
                func.min(jobs.c.updated_at).label("since"),
                func.min(jobs.c.next_at).label("next_at"),
                func.min(cast(jobs.c.id, Text)).label("job"),
            )
            .where(ALIVE, REAL, jobs.c.error_message.is_not(None), jobs.c.waits_for.is_(None))
            .where(jobs.c.state != State.DELIVERING.value)
            .group_by(jobs.c.state, CAUSE)
        )
        of_deliveries = (
            select(
                jobs.c.state,
                deliveries.c.destination,
                null(),
                func.min(deliveries.c.last_error),
                null(),
                func.count(),
                func.min(deliveries.c.updated_at),
                func.min(deliveries.c.next_at),
                null(),
            )
            .join(deliveries, FAILING)
            .where(jobs.c.state == State.DELIVERING.value)
            .group_by(jobs.c.state, deliveries.c.destination)
        )
        both = union_all(of_jobs, of_deliveries).subquery()
        statement = select(both).order_by(both.c.jobs.desc(), both.c.since).limit(_MOST_CAUSES)
        async with self._single.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
            held = [UUID(row["job"]) for row in rows if row["state"] == State.HELD.value and row["job"]]
            choosing = {str(job_id) for job_id in await self._choices(connection, held)} if held else set()
        return [Trouble(**row, choosing=row["job"] in choosing) for row in rows]

    async def standing_alerts(self) -> list[Standing]:
        columns = alerts.c.cause, alerts.c.sentence, alerts.c.advice, alerts.c.since
        statement = select(*columns).where(alerts.c.cleared_at.is_(None)).order_by(alerts.c.since)
        async with self._single.connect() as connection:
            return [Standing(**row) for row in (await connection.execute(statement)).mappings()]

    async def search(self, words: str) -> list[Job]:
        """Of any identifier that a job has, whole, in capitals or small; the newest first, and none of those
        that nobody asked for."""
        written = {words, words.upper(), words.lower()}
        named = [
            select(jobs.c.id)
            .where(column.in_(written), REAL)
            .order_by(jobs.c.created_at.desc())
            .limit(_MOST_FOUND)
            for column in (
                jobs.c.accession_number,
                jobs.c.study_instance_uid,
                jobs.c.slide_id,
                jobs.c.ticket["reference"].astext,
            )
        ]
        found = union_all(*(select(each.subquery().c.id) for each in named)).subquery()
        statement = (
            select(*LISTED)
            .where(jobs.c.id.in_(select(found.c.id)))
            .order_by(jobs.c.created_at.desc())
            .limit(_MOST_FOUND)
        )
        async with self._single.connect() as connection:
            return [self._job(row) for row in (await connection.execute(statement)).mappings()]
