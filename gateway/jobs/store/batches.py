"""What a person does to all jobs that match a filter: in batches, so that no transaction grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs import states
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store.database import LISTED, Refused
from gateway.jobs.store.reading import Filter
from gateway.jobs.store.requests import Detail, Requests
from gateway.jobs.tables import ALIVE, jobs

Act = Literal["resume", "retry", "cancel"]
BATCH = 100
_MOVED_ON = "it has moved on meanwhile"
_MOST_LEFT = 1000  # that are counted, since all that ever ended may be among them
_PAST = {"resume": "resumed", "retry": "retried", "cancel": "cancelled"}
_CONCERNS: dict[Act, ColumnElement[bool]] = {
    "resume": and_(jobs.c.state == State.HELD.value, jobs.c.held_in.is_not(None)),
    "retry": and_(
        jobs.c.state.not_in((State.DONE.value, State.CANCELLED.value)),
        jobs.c.lease_holder.is_(None),
        jobs.c.purged_at.is_(None),
    ),
    "cancel": jobs.c.state.in_([state.value for state in states.ALIVE]),
}


@dataclass(frozen=True, slots=True)
class Acted:
    """`passed_over`: why nothing could be done to some of them after all. `left`: how many others match, and
    why it is nothing for them."""

    done: list[Job] = field(default_factory=list)
    passed_over: dict[UUID, str] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)

    def tell(self, act: Act) -> str:
        """To how many it was done, to how many not, and why."""
        why = Counter(self.left)
        why.update(reason.replace(str(job), "it") for job, reason in self.passed_over.items())
        done = f"{_jobs(len(self.done))} {_PAST[act]}"
        count = why.total()
        many = f"{_MOST_LEFT} or more" if count >= _MOST_LEFT else str(count)
        return f"{done}, {many} not: {tell_left(why)}" if why else done


def tell_left(left: Mapping[str, int]) -> str:
    return "; ".join(f"{number} {why}" for why, number in sorted(left.items()))


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


class Batches(Requests):
    async def count_for(self, act: Act, wanted: Filter) -> int:
        """How many jobs `act_on_all` would act on."""
        statement = select(func.count()).select_from(jobs).where(_CONCERNS[act], *wanted.conditions())
        async with self._single.connect() as connection:
            return int(await connection.scalar(statement) or 0)

    async def count_left(self, act: Act, wanted: Filter) -> dict[str, int]:
        """How many others match, by what keeps it from being done to them. Those that have ended are counted
        only where few are meant: to look for them among all would take the longer, the more there are."""
        reason = case(
            (jobs.c.state.in_((State.DONE.value, State.CANCELLED.value)), jobs.c.state),
            (jobs.c.purged_at.is_not(None), "kept no longer"),
            (jobs.c.lease_holder.is_not(None), "being worked on"),
            else_=jobs.c.state,
        )
        met = [not_(_CONCERNS[act]), *wanted.conditions(), *(() if wanted.names_few else (ALIVE,))]
        others = select(reason.label("why")).where(*met)
        few = others.limit(_MOST_LEFT).subquery()
        async with self._single.connect() as connection:
            found = await connection.execute(
                select(few.c.why, func.count().label("many")).group_by(few.c.why)
            )
            return {row.why: row.many for row in found}

    async def act_on_all(self, act: Act, wanted: Filter, who: str, expect: int) -> Acted:
        """To all that match and that it can be done to, if they are as many as whoever asked has seen. What
        comes to match later is left alone."""
        count = await self.count_for(act, wanted)
        if count != expect:
            found = "1 job matches" if count == 1 else f"{count} jobs match"
            raise Refused(f"{found} now, not {expect}: look at them again")
        left = await self.count_left(act, wanted)
        matching = select(jobs.c.id).where(_CONCERNS[act], *wanted.conditions())
        async with self._single.connect() as connection:
            ids = list(await connection.scalars(matching.order_by(jobs.c.id).limit(expect)))
        acted = Acted(left=left)
        for start in range(0, len(ids), BATCH):
            await self._act_on_batch(act, ids[start : start + BATCH], who, {"one_of": expect}, acted)
        return acted

    async def _act_on_batch(
        self, act: Act, ids: Sequence[UUID], who: str, detail: Detail, acted: Acted
    ) -> None:
        statement = select(*LISTED).where(jobs.c.id.in_(ids), _CONCERNS[act]).order_by(jobs.c.id)
        done, refused = [], {}
        async with self._transaction() as connection:
            rows = (await connection.execute(statement.with_for_update())).mappings().all()
            for job in map(self._job, rows):
                try:
                    async with connection.begin_nested():
                        done.append(await self._act(connection, act, job, who, detail))
                        await self._audit(connection, who, act, job, detail)
                except Refused as reason:
                    refused[job.id] = str(reason)
        acted.done.extend(done)
        acted.passed_over.update(dict.fromkeys(set(ids) - {job.id for job in done}, _MOVED_ON) | refused)

    async def _act(self, connection: AsyncConnection, act: Act, job: Job, who: str, detail: Detail) -> Job:
        match act:
            case "resume":
                return await self._go_on(connection, job, "resumed", who, detail)
            case "retry":
                return await self._retry(connection, job, who, detail)
            case "cancel":
                return await self._cancel(connection, job, who, detail)
