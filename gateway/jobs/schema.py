"""Brings the database to this release's tables, one replica at a time."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, func, select, text

import migrations
from gateway.contract import NeedsHuman

_LOCK = 0x6D696772
_FOLDER = Path(migrations.__file__).parent


def migrate(url: str, to: str = "head") -> tuple[str | None, str | None]:
    """Upgrade, to the newest revision unless told; returns the one before and the one now."""
    import alembic.command  # for those alone who migrate
    from alembic.config import Config

    engine = _engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            before = _revision(connection)
            if before is not None and before not in revisions():
                raise NeedsHuman(
                    f"the database is at {before}, which this release doesn't know",
                    "A newer release has migrated it: run that one, or restore the backup from before.",
                )
            config = Config()
            config.set_main_option("script_location", str(_FOLDER))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, to)
            return before, _revision(connection)
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
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), connect_args={"connect_timeout": 10}
    )
