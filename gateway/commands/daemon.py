"""gateway run, gateway migrate."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway import run as gateway
from gateway.building.tenancy import Part
from gateway.commands.opening import go, read_settings, source_of
from gateway.database import database
from gateway.jobs import schema
from gateway.settings.certificates import telling_lines
from gateway.settings.load import config_path, process_environment
from gateway.settings.source import Source
from gateway.systemd import Systemd


def run(config: Path | None, only: Part | None) -> int:
    settings = read_settings(config, aloud=False)
    environment = process_environment()
    origin = Source(config or config_path(environment), environment, settings)

    async def serve() -> int:
        with telling_lines(settings):
            await gateway.run(settings, only, source_of(config), origin, Systemd(environment))
        return 0

    return go(serve(), log=settings.log)


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
