"""Brings the database to this release's tables, one replica at a time."""

from __future__ import annotations

from pathlib import Path

import alembic.command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, func, select

import migrations
from gateway.contract import NeedsHuman

_LOCK = 0x6D696772


def migrate(url: str) -> tuple[str | None, str]:
    """Upgrade to the newest revision; returns the one before and the one now."""
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            before = _revision(connection)
            if before is not None and before not in _known():
                raise NeedsHuman(
                    f"the database is at {before}, which this release doesn't know",
                    "A newer release has migrated it: run that one, or restore the backup from before.",
                )
            config = _config()
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
            return before, newest()
    finally:
        engine.dispose()


def revision_of(url: str) -> str | None:
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def newest() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _known() -> set[str]:
    return {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _engine(url: str) -> Engine:
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), connect_args={"connect_timeout": 10}
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
