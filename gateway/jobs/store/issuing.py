"""Keys of departments, and which pseudonyms were issued for which job: sealed with a key of the job's own, so
that nobody can read them any more when that is gone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.cipher import Unreadable
from gateway.jobs.store.database import Database
from gateway.jobs.tables import department_keys, job_keys, pseudonyms

_KEY, _NONCE = 32, 12


class Issuing(Database):
    async def department_key(self, department: str) -> bytes:
        """Made once, and the same for ever; Unreadable rather than another one."""
        ours = department_keys.c.department == department
        async with self._transaction() as connection:
            fresh = self._cipher.encrypt(secrets.token_hex(_KEY))
            made = insert(department_keys).values(department=department, key=fresh)
            await connection.execute(made.on_conflict_do_nothing())
            stored = (await connection.execute(select(department_keys.c.key).where(ours))).scalar_one()
            key = bytes.fromhex(self._cipher.decrypt(stored))
            if (renewed := self._cipher.renew(stored)) is not None:
                await connection.execute(update(department_keys).where(ours).values(key=renewed))
            return key

    async def renew_department_keys(self) -> int:
        """As the first key encrypts them. A department that sends nothing while both keys are known would
        lose its own with the old one, and each patient of its his pseudonym."""
        renewed = 0
        async with self._transaction() as connection:
            known = await connection.execute(select(department_keys.c.department, department_keys.c.key))
            for department, stored in known.all():
                try:
                    fresh = self._cipher.renew(stored)
                except Unreadable:
                    continue  # said by whoever needs it
                if fresh is not None:
                    ours = department_keys.c.department == department, department_keys.c.key == stored
                    await connection.execute(update(department_keys).where(*ours).values(key=fresh))
                    renewed += 1
        return renewed

    async def known_department_key(self, department: str) -> bytes | None:
        """For who only looks: none, where nothing was ever issued."""
        stored = select(department_keys.c.key).where(department_keys.c.department == department)
        async with self._single.connect() as connection:
            found = await connection.scalar(stored)
        return None if found is None else bytes.fromhex(self._cipher.decrypt(found))

    async def keep_issued(self, job_id: UUID, issued: Mapping[str, tuple[str, str]]) -> None:
        """By pseudonym: which kind of thing it stands for, and which. What is kept already is the same."""
        if issued:
            async with self._transaction() as connection:
                await self._keep_issued(connection, job_id, issued)

    async def _keep_issued(
        self, connection: AsyncConnection, job_id: UUID, issued: Mapping[str, tuple[str, str]]
    ) -> None:
        if not issued:
            return
        fresh = self._cipher.encrypt(secrets.token_hex(_KEY))
        await connection.execute(insert(job_keys).values(job_id=job_id, key=fresh).on_conflict_do_nothing())
        seal = await self._job_seal(connection, job_id)
        assert seal is not None
        rows = [
            {"job_id": job_id, "pseudonym": each, "sealed": _seal(seal, job_id, each, original)}
            for each, original in sorted(issued.items())
        ]
        await connection.execute(insert(pseudonyms).on_conflict_do_nothing(), rows)

    async def issued_for(self, job_id: UUID) -> dict[str, tuple[str, str]]:
        """Nothing, once the job was purged."""
        async with self._single.connect() as connection:
            return await self._issued_for(connection, job_id)

    async def _issued_for(self, connection: AsyncConnection, job_id: UUID) -> dict[str, tuple[str, str]]:
        seal = await self._job_seal(connection, job_id)
        if seal is None:
            return {}
        found = await connection.execute(
            select(pseudonyms.c.pseudonym, pseudonyms.c.sealed).where(pseudonyms.c.job_id == job_id)
        )
        return {each: _unseal(seal, job_id, each, bytes(sealed)) for each, sealed in found}

    async def issued_as(self, job_id: UUID, pseudonym: str) -> tuple[str, str] | None:
        """One of them."""
        async with self._single.connect() as connection:
            seal = await self._job_seal(connection, job_id)
            ours = pseudonyms.c.job_id == job_id, pseudonyms.c.pseudonym == pseudonym
            sealed = await connection.scalar(select(pseudonyms.c.sealed).where(*ours))
            return None if seal is None or sealed is None else _unseal(seal, job_id, pseudonym, bytes(sealed))

    async def _job_seal(self, connection: AsyncConnection, job_id: UUID) -> AESGCM | None:
        stored = await connection.scalar(select(job_keys.c.key).where(job_keys.c.job_id == job_id))
        return None if stored is None else AESGCM(bytes.fromhex(self._cipher.decrypt(stored)))


def _seal(seal: AESGCM, job_id: UUID, pseudonym: str, original: tuple[str, str]) -> bytes:
    """Bound to the job and the pseudonym: one can't be passed off as another."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + seal.encrypt(nonce, json.dumps(original).encode(), job_id.bytes + pseudonym.encode())


def _unseal(seal: AESGCM, job_id: UUID, pseudonym: str, sealed: bytes) -> tuple[str, str]:
    try:
        text = seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], job_id.bytes + pseudonym.encode())
    except InvalidTag:
        raise Unreadable("a stored pseudonym was changed: it doesn't belong to its job") from None
    kind, value = json.loads(text)
    return kind, value
