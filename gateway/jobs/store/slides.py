"""Which of our results stands on which slide, and in which version."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import SlideRecord
from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import slide_results

_KEY = ["server", "application", "slide_id"]


class Slides(Database):
    async def slide_result(self, server: str, application: str, slide_id: str) -> SlideRecord | None:
        columns = [slide_results.c[f.name] for f in fields(SlideRecord)]
        statement = select(*columns).where(*self._on_slide(server, application, slide_id))
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).mappings().first()
            return None if row is None else SlideRecord(**row)

    async def begin_slide_result(self, server: str, application: str, slide_id: str, seconds: float) -> bool:
        """The right to create the first result on a slide, for so long: else two replicas make two."""
        new = upsert(slide_results).values(
            server=server, application=application, slide_id=slide_id, creating_until=soon(seconds)
        )
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

    async def give_up_slide_result(self, server: str, application: str, slide_id: str) -> None:
        """It surely wasn't created: the right to do so is free again."""
        nothing = slide_results.c.result_id.is_(None)
        async with self._transaction() as connection:
            await connection.execute(
                delete(slide_results).where(*self._on_slide(server, application, slide_id), nothing)
            )

    async def remember_slide_result(
        self, server: str, application: str, slide_id: str, record: SlideRecord
    ) -> None:
        values = {f.name: getattr(record, f.name) for f in fields(SlideRecord)}
        values["creating_until"] = None
        new = upsert(slide_results).values(
            server=server, application=application, slide_id=slide_id, **values
        )
        async with self._transaction() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=_KEY, set_=values))

    async def forget_slide_result(self, server: str, application: str, slide_id: str) -> None:
        async with self._transaction() as connection:
            await connection.execute(
                delete(slide_results).where(*self._on_slide(server, application, slide_id))
            )

    @staticmethod
    def _on_slide(server: str, application: str, slide_id: str) -> tuple[Any, ...]:
        return (
            slide_results.c.server == server,
            slide_results.c.application == application,
            slide_results.c.slide_id == slide_id,
        )
