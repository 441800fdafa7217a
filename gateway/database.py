"""The database that the configuration names, or the embedded one, and its store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.contract import NeedsHuman
from gateway.embedded.running import is_made, running_url
from gateway.jobs.cipher import Cipher
from gateway.jobs.schema import migrate, newest, require_sessions, revision_of
from gateway.jobs.store import Store
from gateway.settings.keys import encryption_keys
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured


@asynccontextmanager
async def database(settings: Settings, *, join: bool = True) -> AsyncIterator[str]:
    """The configured server, the embedded one of a running gateway (`join`), or one of our own."""
    if settings.database_url is not None:
        yield settings.database_url
    elif join and (running := running_url(settings.data_dir)) is not None:
        yield running
    else:
        from gateway.embedded.server import serve  # whoever only asks doesn't need it

        async with serve(settings.data_dir) as url:
            yield url


@asynccontextmanager
async def found_database(settings: Settings) -> AsyncIterator[str]:
    """For those who only look: one that isn't there isn't made."""
    if settings.database_url is None and not is_made(settings.data_dir):
        raise NeedsHuman(
            f"there is no database below {settings.data_dir} yet",
            "Name the configuration of the gateway that you mean, with --config or GATEWAY_CONFIG; if it is"
            " this one, its first gateway run makes the database.",
        )
    async with database(settings) as url:
        yield url


async def prepare(settings: Settings, url: str) -> None:
    await asyncio.to_thread(require_sessions, url)
    if settings.migrate_on_start:
        await asyncio.to_thread(migrate, url)
    else:
        await require_tables(url)


async def require_tables(url: str) -> None:
    """Refuse to work on tables of another release."""
    if await revision_of(url) != newest():
        raise Misconfigured(["the database isn't migrated to this release: run gateway migrate first"])


@asynccontextmanager
async def open_store(settings: Settings, url: str) -> AsyncIterator[Store]:
    store = Store(url, Cipher(encryption_keys(settings)))
    try:
        yield store
    finally:
        await store.close()
