"""What was sent to us and lies in a bucket: a row for each instance, made once its bytes are durable there.
A study is closed once it has been quiet, and is then one job's; a vendor's result is its job's at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Float,
    Uuid,
    any_,
    case,
    delete,
    extract,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from gateway.jobs.store.database import Database
from gateway.jobs.tables import arrivals

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Arrival:
    """`id`: its name in the bucket. `job_id`: whose result it is."""

    id: UUID
    sop_instance_uid: str
    size: int
    application: str | None = None
    study_instance_uid: str | None = None
    delivery: UUID | None = None
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Of a study that was sent to us, what is closed to all that comes later."""

    application: str
    study_instance_uid: str
    key: UUID


_ROW = [arrivals.c[name] for name in Arrival.__dataclass_fields__]


class Arrivals(Database):
    async def add_arrivals(self, arrived: Collection[Arrival]) -> None:
        """All of them, or none."""
        rows = [asdict(each) for each in arrived]
        async with self._transaction() as connection:
            for start in range(0, len(rows), _AT_ONCE):
                await connection.execute(insert(arrivals), rows[start : start + _AT_ONCE])

    async def close_deliveries(self, settle: Mapping[str, float]) -> bool:
        """Of studies that have been quiet for as long as their application says; whether there were any."""
        if not settle:
            return False
        study = arrivals.c.application, arrivals.c.study_instance_uid
        waits = case(settle, value=arrivals.c.application, else_=None).cast(Float)
        age = extract("epoch", func.now() - func.max(arrivals.c.at))
        quiet = (
            select(*study, func.gen_random_uuid().label("key"))
            .where(arrivals.c.delivery.is_(None), arrivals.c.application.in_(list(settle)))
            .group_by(*study)
            .having(age >= func.max(waits))
            .subquery()
        )
        statement = (
            update(arrivals)
            .where(tuple_(*study) == tuple_(quiet.c.application, quiet.c.study_instance_uid))
            .where(arrivals.c.delivery.is_(None))
            .values(delivery=quiet.c.key)
        )
        async with self._single.connect() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def deliveries(self) -> list[Delivery]:
        """All that are closed, and still there."""
        columns = arrivals.c.application, arrivals.c.study_instance_uid, arrivals.c.delivery
        statement = select(*columns).where(arrivals.c.delivery.is_not(None)).distinct()
        async with self._single.connect() as connection:
            return [Delivery(*row) for row in await connection.execute(statement)]

    async def every_arrival_of(
        self, application: str, study_instance_uid: str, key: UUID | None = None
    ) -> list[Arrival]:
        """What came of the study, in one delivery or in all that are closed, in the order it came in."""
        statement = select(*_ROW).where(
            arrivals.c.application == application,
            arrivals.c.study_instance_uid == study_instance_uid,
            arrivals.c.delivery.is_not(None) if key is None else arrivals.c.delivery == key,
        )
        async with self._single.connect() as connection:
            found = await connection.execute(statement.order_by(arrivals.c.at, arrivals.c.id))
            return [Arrival(*row) for row in found]

    async def arrived_of(
        self, application: str, study_instance_uid: str, key: UUID | None = None
    ) -> dict[str, Arrival]:
        """By the instances' UIDs: of what came twice, the later."""
        came = await self.every_arrival_of(application, study_instance_uid, key)
        return {each.sop_instance_uid: each for each in came}

    async def arrived_for(self, job_id: UUID) -> list[tuple[Arrival, float]]:
        """A job's results in the order in which they came, and how many seconds ago."""
        age = extract("epoch", func.now() - arrivals.c.at)
        statement = select(*_ROW, age).where(arrivals.c.job_id == job_id)
        async with self._single.connect() as connection:
            found = await connection.execute(statement.order_by(arrivals.c.at, arrivals.c.id))
            return [(Arrival(*row[:-1]), float(row[-1])) for row in found]

    async def jobs_with_arrivals(self) -> list[UUID]:
        """For whom results came."""
        statement = select(arrivals.c.job_id).where(arrivals.c.job_id.is_not(None)).distinct()
        async with self._single.connect() as connection:
            return list((await connection.execute(statement)).scalars())

    async def bytes_arrived(self) -> int:
        async with self._single.connect() as connection:
            return int(await connection.scalar(select(func.coalesce(func.sum(arrivals.c.size), 0))) or 0)

    async def arrived_among(self, ids: Collection[UUID]) -> set[UUID]:
        """Those of them that are known."""
        async with self._single.connect() as connection:
            return set((await connection.execute(select(arrivals.c.id).where(_named(ids)))).scalars())

    async def forget_arrivals(self, ids: Iterable[UUID]) -> None:
        async with self._single.connect() as connection:
            await connection.execute(delete(arrivals).where(_named(ids)))


def _named(ids: Iterable[UUID]) -> ColumnElement[bool]:
    return arrivals.c.id == any_(literal(list(ids), ARRAY(Uuid)))
