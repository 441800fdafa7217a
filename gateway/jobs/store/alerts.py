"""What somebody has to hear of, once, whichever replica finds it and tells it; and the causes that stand in
the tables themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Uuid,
    and_,
    case,
    cast,
    delete,
    false,
    func,
    literal,
    or_,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import storable
from gateway.jobs.states import State
from gateway.jobs.store.database import Database, Standing, soon
from gateway.jobs.tables import ALIVE, REAL, alerts, deliveries, jobs

LOG = "log"  # is told first, and notes it as a channel does
FOUND = "found."  # begins the cause of what is news, and doesn't stand
IS_NEWS_AFTER = 2.0  # what was over before is none
_KEEPS_FAILING = 2  # tries of a delivery
_RECOVERS_BY_ITSELF = 4  # times, what was held for a peer
# A last reminder of then: other words are to be told at once. Its moment names the telling.
_TOLD_ANEW = func.to_timestamp(func.extract("epoch", func.now()) / 1000)
_ANEW_BEFORE = datetime(1971, 1, 1, tzinfo=UTC)
_CLEARED = alerts.c.cleared_at.is_not(None)
_UNTOLD = or_(alerts.c.told_at.is_(None), and_(_CLEARED, alerts.c.clear_told_at.is_(None)))


@dataclass(frozen=True, slots=True)
class Cause:
    """What stands and has to be seen to. `sentence`: in one, without a patient; it begins small and has no
    full stop. `departments`: whose contacts hear of it too. `jobs`: how many it keeps."""

    key: str
    sentence: str
    advice: str = ""
    departments: tuple[str, ...] = ()
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class Alert:
    """`cleared_at`: the all-clear is what is to be told. `told_to`: what each channel has taken already of
    that; `heard_by`: who was ever told that it stands, as far as anybody noted it. Not `due`: nobody but who
    never heard of it is to."""

    id: int
    cause: str
    sentence: str
    advice: str
    departments: Sequence[str]
    since: datetime
    cleared_at: datetime | None
    told_at: datetime | None
    seen_at: datetime | None
    told_to: Sequence[str]
    tries: int
    reminded_at: datetime | None
    heard_by: Sequence[str] | None
    due: bool

    @property
    def cleared(self) -> bool:
        return self.cleared_at is not None

    @property
    def is_news(self) -> bool:
        return self.cause.startswith(FOUND)


@dataclass(frozen=True, slots=True)
class Held:
    """Jobs that don't get on by themselves, all for one reason. `kind`: of their failure, or the peer whose
    doing it was; `reason` stands for their message, whatever numbers it names."""

    department: str
    application: str
    kind: str
    reason: str
    message: str
    advice: str
    jobs: int
    some: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Stuck:
    """Jobs whose results don't get into a destination."""

    department: str
    destination: str
    jobs: int
    message: str


_BY_ITSELF = and_(jobs.c.held_by.is_not(None), jobs.c.recoveries < _RECOVERS_BY_ITSELF)
_SOME = 5
_MOST_REASONS = 50
_OWN_WORDS = func.coalesce(jobs.c.error_message, "")
_REASON = func.left(func.md5(func.regexp_replace(_OWN_WORDS, "[0-9]+", "#", "g")), 6)
_KIND_OF_HELD = (
    jobs.c.department.label("department"),
    jobs.c.application.label("application"),
    func.coalesce(jobs.c.held_by, jobs.c.error_kind, "").label("kind"),
    _REASON.label("reason"),
)
_IDS = type_coerce(func.array_agg(aggregate_order_by(jobs.c.id, jobs.c.created_at, jobs.c.id)), ARRAY(Uuid))
_HELD = Standing(
    select(
        *_KIND_OF_HELD,
        func.min(_OWN_WORDS),
        func.coalesce(func.min(jobs.c.error_advice), ""),
        func.count(),
        _IDS[1:_SOME],
    )
    .where(ALIVE, jobs.c.state == State.HELD.value, ~_BY_ITSELF, REAL)
    .group_by(text("1"), text("2"), text("3"), text("4"))
    .order_by(func.count().desc())
    .limit(_MOST_REASONS)
)
_KIND_OF_FAILING = jobs.c.department, deliveries.c.destination
_FAILING = Standing(
    select(*_KIND_OF_FAILING, func.count(), func.coalesce(func.min(deliveries.c.last_error), ""))
    .join(deliveries, deliveries.c.job_id == jobs.c.id)
    .where(
        ALIVE,
        jobs.c.state == State.DELIVERING.value,
        deliveries.c.state == "pending",
        deliveries.c.attempts >= _KEEPS_FAILING,
        deliveries.c.waits_for.is_(None),
        REAL,
    )
    .group_by(*_KIND_OF_FAILING)
)
_STANDING = Standing(
    select(alerts.c.cause).where(~_CLEARED, ~alerts.c.cause.startswith(FOUND)).order_by(alerts.c.cause)
)
_ANY_STANDING = Standing(select(alerts.c.id).where(~_CLEARED).limit(1))
_ANY_LEFT = Standing(select(alerts.c.id).where(or_(~_CLEARED, alerts.c.clear_told_at.is_(None))).limit(1))


class AlertQueue(Database):
    async def see(self, causes: Iterable[Cause]) -> None:
        """They stand now. Each begins an alert, unless there is one already."""
        for cause in causes:
            now = {
                "sentence": storable(cause.sentence),
                "advice": storable(cause.advice),
                "departments": list(cause.departments),
                "seen_at": func.now(),
            }
            statement = (
                upsert(alerts)
                .values(cause=cause.key, next_try_at=soon(IS_NEWS_AFTER), **now)
                .on_conflict_do_update(
                    index_elements=["cause"], index_where=alerts.c.cleared_at.is_(None), set_=now
                )
            )
            async with self._transaction() as connection:
                await connection.execute(statement)

    async def tell_once(self, news: Cause) -> None:
        """What has no end: nobody is reminded of it, and no all-clear follows."""
        known = select(alerts.c.id).where(alerts.c.cause == news.key).exists()
        values = {
            "cause": news.key,
            "sentence": storable(news.sentence),
            "advice": storable(news.advice),
            "departments": list(news.departments),
        }
        columns = [cast(literal(value), alerts.c[name].type) for name, value in values.items()]
        statement = upsert(alerts).from_select(list(values), select(*columns).where(~known))
        async with self._transaction() as connection:
            await connection.execute(statement.on_conflict_do_nothing())

    async def clear_unseen(self, seconds: float) -> None:
        """Those that nobody has found standing for so long."""
        unseen = alerts.c.seen_at < soon(-seconds)
        statement = update(alerts).where(alerts.c.cleared_at.is_(None), unseen).values(**cleared())
        if not await self._ask(_ANY_STANDING):
            return
        async with self._transaction() as connection:
            await connection.execute(statement)

    async def standing_causes(self) -> list[str]:
        return [cause for (cause,) in await self._ask(_STANDING)]

    async def forget_alerts(self, days: int) -> int:
        """Those that were over for so long, and whose end was told; returns how many there were."""
        over = alerts.c.cleared_at < func.now() - timedelta(days=days)
        told = alerts.c.clear_told_at.is_not(None)
        async with self._single.connect() as connection:
            forgotten = await connection.execute(delete(alerts).where(over, told))
            return forgotten.rowcount

    # -- telling it -----------------------------------------------------------------------------------

    async def take_untold(
        self,
        seconds: float,
        group: float = 0.0,
        remind: float | None = None,
        hearers: Sequence[str] = (),
    ) -> list[Alert]:
        """What is to be told now, by nobody else within these seconds. What was over before anybody could be
        told of it is no news any more; a cause that was over is told again after `group` at the soonest, and
        one that stands every `remind` seconds, and to those of the `hearers` who came since."""
        if not await self._ask(_ANY_LEFT):
            return []
        due = _due(group, remind)
        wanted = or_(due, _unheard_by(hearers))
        missed = and_(alerts.c.told_at.is_(None), _CLEARED, alerts.c.tries == 0)
        chosen = (
            select(alerts.c.id)
            .where(wanted, alerts.c.next_try_at <= func.now())
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(alerts)
            .where(alerts.c.id.in_(chosen.scalar_subquery()))
            .values(next_try_at=soon(seconds), tries=alerts.c.tries + 1)
            .returning(*(due.label("due") if f.name == "due" else alerts.c[f.name] for f in fields(Alert)))
        )
        async with self._single.connect() as connection:
            if await connection.scalar(select(alerts.c.id).where(wanted).limit(1)) is None:
                return []
        async with self._transaction() as connection:
            await connection.execute(
                update(alerts).where(missed).values(told_at=func.now(), clear_told_at=func.now())
            )
            return [Alert(**row) for row in (await connection.execute(statement)).mappings()]

    async def note_told(self, alert: Alert, what: str, hearer: str) -> None:
        """One channel has taken it."""
        noted = {"told_to": func.array_append(alerts.c.told_to, what), "heard_by": _heard_too(hearer)}
        async with self._transaction() as connection:
            await connection.execute(update(alerts).where(alerts.c.id == alert.id).values(noted))

    async def note_heard(self, alert: Alert, hearer: str) -> None:
        """Of what stands, and the others know."""
        noted = {"heard_by": _heard_too(hearer), "next_try_at": func.now(), "tries": 0}
        async with self._transaction() as connection:
            await connection.execute(update(alerts).where(alerts.c.id == alert.id).values(noted))

    async def mark_told(self, alert: Alert) -> None:
        """All have."""
        told: dict[str, Any] = {"told_at": func.coalesce(alerts.c.told_at, func.now())}
        other_words = and_(alerts.c.seen_at.is_(None), alerts.c.sentence != alert.sentence)
        if alert.cleared:
            told["clear_told_at"] = func.now()
        elif alert.is_news:
            told |= {"cleared_at": func.now(), "clear_told_at": func.now()}
        elif alert.told_at is not None:
            told |= {"reminded_at": case((other_words, _TOLD_ANEW), else_=func.now()), "told_to": []}
        else:
            told["reminded_at"] = case((other_words, _TOLD_ANEW), else_=alerts.c.reminded_at)
        async with self._transaction() as connection:
            await connection.execute(
                update(alerts).where(alerts.c.id == alert.id).values(**told, next_try_at=func.now(), tries=0)
            )

    async def put_off_telling(self, alert: Alert, seconds: float) -> None:
        async with self._transaction() as connection:
            await connection.execute(
                update(alerts).where(alerts.c.id == alert.id).values(next_try_at=soon(seconds))
            )

    # -- what stands in the tables --------------------------------------------------------------------

    async def waiting_by_department(self) -> dict[str, dict[str, int]]:
        """How many jobs wait for each peer."""
        kind = jobs.c.waits_for, jobs.c.department
        waiting = jobs.c.waits_for.is_not(None), REAL
        statement = select(*kind, func.count()).where(*waiting).group_by(*kind)
        found: dict[str, dict[str, int]] = {}
        async with self._single.connect() as connection:
            for peer, department, count in await connection.execute(statement):
                found.setdefault(peer, {})[department] = count
        return found

    async def held_jobs(self) -> list[Held]:
        """Those that need a person."""
        return [Held(*row) for row in await self._ask(_HELD)]

    async def failing_deliveries(self) -> list[Stuck]:
        """Those that keep failing at a destination that is there."""
        return [Stuck(*row) for row in await self._ask(_FAILING)]


def cleared() -> dict[str, Any]:
    """What stands in an alert whose cause is gone."""
    return {
        "cleared_at": func.now(),
        "next_try_at": func.now(),
        "tries": case((alerts.c.told_at.is_(None), alerts.c.tries), else_=0),
    }


def changed(sentence: str, advice: str) -> dict[str, Any]:
    """What stands in an alert that is to be told in other words: once more, by those who told it before. The
    log has a line of them at once."""
    untold = alerts.c.told_at.is_(None)
    told_to = func.array_remove(alerts.c.told_to, f"alert:{LOG}")
    by_nobody = and_(untold, func.cardinality(told_to) == 0)
    return {
        "sentence": storable(sentence),
        "advice": storable(advice),
        "reminded_at": case((by_nobody, alerts.c.reminded_at), else_=_TOLD_ANEW),
        "told_to": case((untold, told_to), else_=cast([], alerts.c.told_to.type)),
        "next_try_at": case((untold, alerts.c.next_try_at), else_=func.now()),
        "tries": case((untold, alerts.c.tries), else_=0),
    }


def _heard_too(hearer: str) -> ColumnElement[Any]:
    before = func.coalesce(alerts.c.heard_by, cast([], alerts.c.heard_by.type))
    return func.array_append(func.array_remove(before, hearer), hearer)


def _unheard_by(hearers: Sequence[str]) -> ColumnElement[bool]:
    """Not of one of which nobody noted who heard it: it was told by the release before."""
    if not hearers:
        return false()
    known = alerts.c.heard_by.is_not(None)
    return and_(~_CLEARED, alerts.c.told_at.is_not(None), known, ~alerts.c.heard_by.contains(list(hearers)))


def _due(group: float, remind: float | None) -> ColumnElement[bool]:
    before = alerts.alias()
    lately = (
        select(before.c.id)
        .where(before.c.cause == alerts.c.cause, before.c.clear_told_at > soon(-group))
        .where(before.c.told_at != before.c.clear_told_at)  # at once: nobody was told
        .exists()
    )
    due = or_(
        and_(_UNTOLD, or_(alerts.c.told_at.is_not(None), _CLEARED, ~lately)),
        and_(~_CLEARED, alerts.c.told_at.is_not(None), alerts.c.reminded_at < _ANEW_BEFORE),
    )
    if remind is None:
        return due
    told = func.coalesce(alerts.c.reminded_at, alerts.c.told_at)
    return or_(due, and_(~_CLEARED, told < soon(-remind)))
