"""Which of our results stands in which area of a slide, and in which version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.dialects.postgresql import psycopg

from gateway.jobs.cipher import Cipher
from gateway.jobs.records import Place, SlideRecord
from gateway.jobs.store.database import POOL, Database, soon
from gateway.jobs.tables import grants, slide_results

_KEY = [f.name for f in fields(Place)]
_TOLD = [f.name for f in fields(SlideRecord)]
_STANDING = f"""
    SELECT {", ".join(_TOLD)} FROM slide_results
    WHERE {" AND ".join(f"{name} = %({name})s" for name in _KEY)}"""
_KNOWN = [column for column in slide_results.c if column.name in (*_KEY, *_TOLD)]
_KINDS = ", ".join(f"{column.name} {column.type.compile(psycopg.dialect())}" for column in _KNOWN)  # type: ignore[no-untyped-call]
_REMEMBER = f"""
    INSERT INTO slide_results ({", ".join(column.name for column in _KNOWN)})
    SELECT * FROM json_to_recordset(%(all)s::json) AS given ({_KINDS})
    ORDER BY {", ".join(_KEY)}
    ON CONFLICT ({", ".join(_KEY)}) DO UPDATE
    SET creating_until = NULL, {", ".join(f"{name} = excluded.{name}" for name in _TOLD)}
    RETURNING true"""


class Slides(Database):
    def __init__(self, url: str, cipher: Cipher, *, pool_size: int = POOL) -> None:
        super().__init__(url, cipher, pool_size=pool_size)
        self._remembering = self._open_ferry(self._remember_all)

    async def slide_result(self, place: Place) -> SlideRecord | None:
        rows = await self._lines.fetch(_STANDING, asdict(place))
        return SlideRecord(*rows[0]) if rows else None

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
        async with self._single.connect() as connection:
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
        async with self._single.connect() as connection:
            return (await connection.execute(statement)).first() is not None

    async def give_up_slide_result(self, place: Place) -> None:
        """It surely wasn't created: the right to do so is free again."""
        async with self._single.connect() as connection:
            await connection.execute(
                delete(slide_results).where(*_at(place), slide_results.c.result_id.is_(None))
            )

    async def remember_slide_result(self, place: Place, record: SlideRecord) -> None:
        told = {name: getattr(record, name) for name in _TOLD}
        await self._remembering.take({**asdict(place), **told, "replaced": list(record.replaced)})

    async def _remember_all(self, given: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        await self._lines.fetch(_REMEMBER, {"all": json.dumps(given, default=str)})
        return given

    async def note_version(self, server: str, application: str, result_id: int, version: str) -> None:
        """Somebody else has changed what stands there: who holds an older version has missed that."""
        async with self._single.connect() as connection:
            await connection.execute(
                update(slide_results)
                .where(*_of(server, application, result_id))
                .values(version_id=version, replaced=[])
            )

    async def forget_slide_result(self, place: Place) -> None:
        async with self._single.connect() as connection:
            await connection.execute(delete(slide_results).where(*_at(place)))

    async def forget_result(self, server: str, application: str, result_id: int) -> None:
        """A user deleted it, wherever it stood."""
        async with self._single.connect() as connection:
            await connection.execute(delete(slide_results).where(*_of(server, application, result_id)))


def _at(place: Place) -> tuple[Any, ...]:
    return tuple(slide_results.c[name] == value for name, value in asdict(place).items())


def _of(server: str, application: str, result_id: int) -> tuple[Any, ...]:
    return (
        slide_results.c.server == server,
        slide_results.c.application == application,
        slide_results.c.result_id == result_id,
    )
