"""Calls on one vendor for one job, each with a token of its own: one that gave no answer is made again, and
both may run. The first of them that writes is the one that counts, and the others' tokens end with that; if
what it wrote isn't taken, they are good again.

The token of the one that counts, and until then of the newest, stands with the grant; the others here. One
that has ended for good is known by its digest alone.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.contract import Callback
from gateway.jobs.cipher import Unreadable
from gateway.jobs.records import Job
from gateway.jobs.store.database import Database
from gateway.jobs.tables import grants, rivals

_HEARD = "of several calls on the vendor one was heard first: the others' tokens have ended"
_NOT_TAKEN = "what the vendor wrote first wasn't taken: the tokens of its other calls are good again"
_WRITING = timedelta(minutes=2)  # longer than Sectra is waited for
_REFUSED = "a call on the vendor whose token has ended, since another was heard first, was refused"


class Turn(Enum):
    """Of a call that wants to write. `LATER`: another is just writing, and may fail."""

    FIRST = 1
    LATER = 2
    NEVER = 3


class Rivals(Database):
    async def open_another_grant(self, job: Job, url: str) -> Callback | None:
        """For a call that follows one which may run yet: with a token that nobody holds, beside the one that
        somebody may. None: the vendor has been heard meanwhile."""
        async with self._transaction() as connection:
            await self._hold(connection, job, {"updated_at": func.now()})
            known = await self._grant_of(connection, job.id)
            if known is None or _is_heard(known):
                return None
            await set_aside(connection, known)
            minted = self._mint()
            await connection.execute(update(grants).where(grants.c.job_id == job.id).values(**minted))
            return Callback(url, self._token(minted) or "", known["calls"] > 0)

    async def hear(self, job: Job, token_sha256: str) -> Turn:
        """Before what a call of the vendor's writes: whether it may. The first that asks is the one, and all
        others' tokens end; `settle` says then whether for good."""
        async with self._transaction() as connection:
            locked = await self._locked(connection, job.id)
            known = await self._grant_of(connection, job.id)
            if locked is None or known is None:
                return Turn.NEVER
            if known["token_sha256"] != token_sha256:
                if await _may_be_revived(connection, known, token_sha256):
                    return Turn.LATER
                if _is_heard(known) or not await _bring_back(connection, known, token_sha256):
                    return Turn.NEVER
            elif known["heard_sha256"] == token_sha256:
                return Turn.FIRST
            heard = {"heard_sha256": token_sha256, "heard_at": func.now()}
            await connection.execute(update(grants).where(grants.c.job_id == job.id).values(**heard))
            theirs = update(rivals).where(rivals.c.job_id == job.id, ~rivals.c.ended).values(ended=True)
            if ended := (await connection.execute(theirs)).rowcount:
                await self._append(connection, locked, _HEARD, {"ended": ended})
            return Turn.FIRST

    async def settle(self, job: Job, token_sha256: str, *, taken: bool) -> None:
        """After what it wrote: `taken`, or refused, so that another call may write as well as this one."""
        theirs = rivals.c.job_id == job.id, rivals.c.ended, rivals.c.token.is_not(None)
        async with self._transaction() as connection:
            if taken:
                await connection.execute(update(rivals).where(*theirs).values(token=None))
                return
            locked = await self._locked(connection, job.id)
            known = await self._grant_of(connection, job.id)
            if locked is None or known is None or known["heard_sha256"] != token_sha256:
                return
            revived = await connection.execute(update(rivals).where(*theirs).values(ended=False))
            if revived.rowcount:
                await connection.execute(
                    update(grants).where(grants.c.job_id == job.id).values(heard_sha256=None)
                )
                await self._append(connection, locked, _NOT_TAKEN, {"good": revived.rowcount})

    # -- inside ---------------------------------------------------------------------------------------

    async def _refuse_rival(self, connection: AsyncConnection, job_id: UUID, token_sha256: str) -> None:
        """Its first try stands in the history; or who keeps a token could fill the disk with it."""
        first = (
            update(rivals)
            .where(rivals.c.token_sha256 == token_sha256, ~rivals.c.refused)
            .values(refused=True)
            .returning(rivals.c.job_id)
        )
        job = await self._locked(connection, job_id)
        if job is not None and await connection.scalar(first) is not None:
            await self._append(connection, job, _REFUSED, {})

    @staticmethod
    async def _grant_of(connection: AsyncConnection, job_id: UUID) -> RowMapping | None:
        statement = select(grants).where(grants.c.job_id == job_id).with_for_update()
        return (await connection.execute(statement)).mappings().first()

    def _mint(self) -> dict[str, Any]:
        token = secrets.token_urlsafe(32)
        return {
            "token": self._cipher.encrypt(token),
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        }

    def _token(self, known: RowMapping | dict[str, Any]) -> str | None:
        try:
            token: str | None = self._cipher.decrypt(known["token"])
        except Unreadable:
            return None
        return token


async def end_rivals(connection: AsyncConnection, job_id: UUID) -> None:
    """For good."""
    theirs = rivals.c.job_id == job_id, or_(~rivals.c.ended, rivals.c.token.is_not(None))
    await connection.execute(update(rivals).where(*theirs).values(ended=True, token=None))


async def set_aside(connection: AsyncConnection, known: RowMapping) -> None:
    """The token that stands with the grant."""
    if known["token_sha256"] is not None:
        values = {name: known[name] for name in ("job_id", "token", "token_sha256")}
        await connection.execute(insert(rivals).values(values))


async def _may_be_revived(connection: AsyncConnection, known: RowMapping, token_sha256: str) -> bool:
    """Whether it has ended because of one that is still writing. One whose process has died is waited for no
    longer than it would have written: what became of that nobody knows."""
    theirs = (
        select(rivals.c.job_id)
        .join(grants, grants.c.job_id == rivals.c.job_id)
        .where(
            rivals.c.job_id == known["job_id"],
            rivals.c.token_sha256 == token_sha256,
            rivals.c.ended,
            rivals.c.token.is_not(None),
            grants.c.heard_at > func.now() - _WRITING,
        )
    )
    return await connection.scalar(theirs) is not None


async def _bring_back(connection: AsyncConnection, known: RowMapping, token_sha256: str) -> bool:
    """In place of the one that stands with the grant, if it hasn't ended."""
    theirs = delete(rivals).where(
        rivals.c.job_id == known["job_id"], rivals.c.token_sha256 == token_sha256, ~rivals.c.ended
    )
    rival = (await connection.execute(theirs.returning(rivals.c.token))).first()
    if rival is None:
        return False
    await set_aside(connection, known)
    own = {"token": rival.token, "token_sha256": token_sha256}
    await connection.execute(update(grants).where(grants.c.job_id == known["job_id"]).values(**own))
    return True


def _is_heard(known: RowMapping) -> bool:
    """The release before kept no record of who was heard, and knew of one token only."""
    return bool(known["stores"]) or known["heard_sha256"] == known["token_sha256"]
