"""Which of our results stands in which area of a slide, and in which version."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import Place, SlideRecord
from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import grants, slide_results

_KEY = [f.name for f in fields(Place)]
_RECORD = [slide_results.c[f.name] for f in fields(SlideRecord)]


class Slides(Database):
    async def slide_result(self, place: Place) -> SlideRecord | None:
        statement = select(*_RECORD).where(*_at(place))
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).mappings().first()
            return None if row is None else SlideRecord(**row)

    async def results_elsewhere(self, place: Place) -> set[int]:
        """The results that stand for other areas of the slide, ours and those that vendors stored."""
        on_slide = _at(replace(place, area=""))[:-1]
        signs = select(slide_results.c.result_id).where(
            *on_slide, slide_results.c.area != place.area, slide_results.c.result_id.is_not(None)
        )
        stored = select(func.jsonb_object_keys(grants.c.results)).where(
            *(grants.c[name] == getattr(place, name) for name in _KEY if name != "area"),
            grants.c.area != place.area,
        )
        async with self._engine.connect() as connection:
            ours = (await connection.execute(signs)).scalars().all()
            theirs = (await connection.execute(stored)).scalars().all()
            return {*ours, *map(int, theirs)}

    async def begin_slide_result(self, place: Place, seconds: float) -> bool:
        """The right to create the first result there, for so long: else two replicas make two."""
        new = upsert(slide_results).values(**asdict(place), creating_until=soon(seconds))
        statement = new.on_conflict_do_update(
            index_elements=_KEY,
            set_={"creating_until": soon(seconds)},
            where=and_(
                slide_results.c.result_id.is_(None),
                or_(slide_results.c.creating_until.is_(None), slide_results.c.creating_until < func.now()),
            ),
        ).returning(slide_results.c.slide_id)
        async with self._transaction() as connection:
            return (await connection.execute(statement)).first() is not None

    async def give_up_slide_result(self, place: Place) -> None:
        """It surely wasn't created: the right to do so is free again."""
        async with self._transaction() as connection:
            await connection.execute(
                delete(slide_results).where(*_at(place), slide_results.c.result_id.is_(None))
            )

    async def remember_slide_result(self, place: Place, record: SlideRecord) -> None:
        values = {f.name: getattr(record, f.name) for f in fields(SlideRecord)} | {"creating_until": None}
        new = upsert(slide_results).values(**asdict(place), **values)
        async with self._transaction() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=_KEY, set_=values))

    async def note_version(self, server: str, application: str, result_id: int, version: str) -> None:
        """Somebody else has changed what stands there: who holds an older version has missed that."""
        async with self._transaction() as connection:
            await connection.execute(
                update(slide_results)
                .where(*_of(server, application, result_id))
                .values(version_id=version, replaced=[])
            )

    async def forget_slide_result(self, place: Place) -> None:
        async with self._transaction() as connection:
            await connection.execute(delete(slide_results).where(*_at(place)))

    async def forget_result(self, server: str, application: str, result_id: int) -> None:
        """A user deleted it, wherever it stood."""
        async with self._transaction() as connection:
            await connection.execute(delete(slide_results).where(*_of(server, application, result_id)))


def _at(place: Place) -> tuple[Any, ...]:
    return tuple(slide_results.c[name] == value for name, value in asdict(place).items())


def _of(server: str, application: str, result_id: int) -> tuple[Any, ...]:
    return (
        slide_results.c.server == server,
        slide_results.c.application == application,
        slide_results.c.result_id == result_id,
    )
