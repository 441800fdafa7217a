"""Brings the database to this release's tables, one replica at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from gateway.contract import NeedsHuman

_LOCK = 0x6D696772
_PATIENCE, _PAUSE, _TRIES = 2, 0.5, 60  # seconds; whoever works meanwhile waits no longer for us
_PATIENT: dict[str, Any] = {"connect_timeout": 10}
_CONNECT: dict[str, Any] = {**_PATIENT, "prepare_threshold": None}
_LOOKS = 3
_FOLDER = Path(migrations.__file__).parent


def migrate(url: str, to: str = "head") -> tuple[str | None, str | None]:
    """Upgrade, to the newest revision unless told; returns the one before and the one now. One revision at a
    time, and none waits long for a lock: the release before may be at work on the same tables."""
    engine = _engine(url)
    try:
        with engine.connect() as guard:
            guard.execute(select(func.pg_advisory_lock(_LOCK)))
            guard.commit()
            before = _revision(guard)
            guard.commit()
            if before is not None and before not in revisions():
                raise NeedsHuman(
                    f"the database is at {before}, which this release doesn't know",
                    "A newer release has migrated it: run that one, or restore the backup from before.",
                )
            last = newest() if to == "head" else to
            for revision in revisions():
                if (before or "") < revision <= last:
                    _upgrade(engine, revision)
            return before, _revision(guard)
    finally:
        engine.dispose()


def _upgrade(engine: Engine, revision: str) -> None:
    import alembic.command  # much to load, for those alone who have something to migrate
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    for tries_left in reversed(range(_TRIES)):
        try:
            with engine.begin() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE}s'"))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, revision)
                return
        except OperationalError as trouble:
            if not tries_left or not isinstance(trouble.orig, LockNotAvailable | DeadlockDetected):
                raise
            time.sleep(_PAUSE)


def require_empty(url: str) -> None:
    """Refuse to restore anything over what is there."""
    here = "FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    with psycopg.connect(url, **_CONNECT) as connection:
        row = connection.execute(f"SELECT count(*) {here}").fetchone()
    if row is not None and row[0]:
        raise NeedsHuman(
            f"the database that database_url names isn't empty: it has {row[0]} tables",
            "Make an empty one (createdb) and name that; nothing is ever restored over what is there.",
        )


def server_of(url: str) -> int:
    """Which PostgreSQL it is: its first number."""
    with psycopg.connect(url, **_CONNECT) as connection:
        return connection.info.server_version // 10000


def require_sessions(url: str) -> None:
    """Refuse a pooler that gives sessions out by the transaction: a worker's sign of life is a lock of its
    session, and who listens does so in one."""
    with (
        psycopg.connect(url, autocommit=True, **_CONNECT) as ours,
        psycopg.connect(url, **_CONNECT) as another,
    ):
        for _ in range(_LOOKS):
            before, theirs = _session_of(ours), _session_of(another)  # which stays in its transaction
            if before == theirs or before != _session_of(ours):
                raise NeedsHuman(
                    "a pooler shares the database's sessions out by the transaction, and ours have to last",
                    "Name the server itself in database_url, or set pool_mode = session in PgBouncer for it.",
                )
            another.rollback()


def _session_of(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0


async def revision_of(url: str) -> str | None:
    """Not in a thread, which nobody could stop: a server that is frozen never answers."""
    engine = create_async_engine(_address(url), poolclass=NullPool, connect_args=_PATIENT)
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


def newest() -> str:
    return revisions()[-1]


def revisions() -> list[str]:
    """All that this release knows, in their order: their files' names begin with them."""
    return sorted(path.name[:4] for path in (_FOLDER / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def _revision(connection: Connection) -> str | None:
    if connection.scalar(select(func.to_regclass("alembic_version"))) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _engine(url: str) -> Engine:
    return create_engine(_address(url), connect_args=_PATIENT)


def _address(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
