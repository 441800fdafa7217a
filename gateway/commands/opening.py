"""What every command does first: read the configuration, or say what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer
import uvloop
from cryptography.fernet import Fernet
from pydantic import SecretStr

from gateway import logs
from gateway.contract import Failure
from gateway.database import database, open_store, require_tables
from gateway.jobs.store import DatabaseLost, Store
from gateway.settings.load import config_path, load, process_environment
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured

FAILED = 1
WRONG_USE = 2


def read_settings(config: Path | None) -> Settings:
    environment = process_environment()
    try:
        return load(config or config_path(environment), environment)
    except Misconfigured as problem:
        complain(*problem.problems)
        raise typer.Exit(FAILED) from None


def complain(*sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr)


def go(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end, on uvloop."""
    logs.begin()
    try:
        return uvloop.run(main)
    except Misconfigured as problem:
        complain(*problem.problems)
        return FAILED
    except Failure as failure:
        complain(failure.message, failure.advice)
        return FAILED
    except DatabaseLost:
        complain("the database doesn't answer; check database_url and that the server runs")
        return FAILED
    except KeyboardInterrupt:
        return 130


def only_looking(settings: Settings) -> Settings:
    """For commands that need no stored secret: run by root, they would else make a key that is root's."""
    if settings.secret_keys:
        return settings
    return settings.model_copy(update={"secret_keys": [SecretStr(Fernet.generate_key().decode())]})


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[Store]:
    async with database(settings) as url:
        await require_tables(url)  # whoever only looks must not change them under those who work
        async with open_store(settings, url) as store:
            yield store


def with_store(config: Path | None, work: Callable[[Store], Awaitable[int]]) -> int:
    settings = read_settings(config)

    async def run() -> int:
        async with store_of(settings) as store:
            return await work(store)

    return go(run())
