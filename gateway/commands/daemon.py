"""gateway run, gateway migrate."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway import run as house
from gateway.commands.opening import FAILED, complain, go, read_settings
from gateway.database import database
from gateway.jobs import schema
from gateway.run import Part


def run(config: Path | None, only: Part | None) -> int:
    settings = read_settings(config)

    async def serve() -> int:
        try:
            await house.run(settings, only)
        except OSError as error:
            complain(f"{settings.listen.host}:{settings.listen.port}: {error.strerror}; see listen")
            return FAILED
        return 0

    return go(serve())


def migrate(config: Path | None) -> int:
    settings = read_settings(config)

    async def upgrade() -> int:
        async with database(settings) as url:
            before, now = await asyncio.to_thread(schema.migrate, url)
        print(
            f"the database is at {now}" if before == now else f"migrated from {before or 'nothing'} to {now}"
        )
        return 0

    return go(upgrade())
