"""What every command does first: read the configuration, or say what is wrong with it."""

from __future__ import annotations

import logging
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
from gateway.contract import Failure, NeedsHuman
from gateway.database import found_database, open_store, require_tables
from gateway.jobs.answering import answering
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.trouble import place_of, why
from gateway.settings.keys import has_encryption_key
from gateway.settings.load import config_path, load, load_whereabouts, process_environment
from gateway.settings.sections import Log, Settings
from gateway.settings.tree import Misconfigured

FAILED = 1
WRONG_USE = 2
STOPPED = 130  # as shells say it of Ctrl-C


def read_settings(config: Path | None, *, failed: int = FAILED, aloud: bool = True) -> Settings:
    """`failed`: the exit code if it is no good. `aloud`: says which file it read."""
    environment = process_environment()
    path = config or config_path(environment)
    try:
        settings = load(path, environment)
    except Misconfigured as problem:
        complain(*problem.problems)
        raise typer.Exit(failed) from None
    if aloud:
        complain(f"configuration: {source_of(config)}")
    return settings


def source_of(config: Path | None) -> str:
    path = config or config_path(process_environment())
    return "none but the environment (GATEWAY_CONFIG isn't set)" if path is None else str(path)


def complain(*sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr)


def go(main: Coroutine[Any, Any, int], *, failed: int = FAILED, log: Log | None = None) -> int:
    """Run to the end, on uvloop."""
    log = log or Log()
    logs.begin(logging.getLevelNamesMapping()[log.level.upper()], log.format)
    try:
        return uvloop.run(main)
    except Misconfigured as problem:
        complain(*problem.problems)
    except Failure as failure:
        complain(*filter(None, (failure.message, failure.advice)))
    except DatabaseError as trouble:
        complain(why(trouble))
    except KeyboardInterrupt:
        return STOPPED
    return failed


def only_looking(settings: Settings) -> Settings:
    """For commands that need no stored secret: run by root, they would else make a key that is root's."""
    if settings.secret_keys:
        return settings
    return settings.model_copy(update={"secret_keys": [SecretStr(Fernet.generate_key().decode())]})


@asynccontextmanager
async def reached(settings: Settings, asked: str, *, acts: bool = False) -> AsyncIterator[str]:
    """A database that is there, has this release's tables, and answers; nothing is created for those who look
    at what a gateway has done. `asked`: what is wanted of it, as in "to list jobs"."""
    async with found_database(settings) as url:
        try:
            async with answering(url, asked):
                await require_tables(url)  # whoever only looks must not change them under those who work
            async with answering(url, asked, acts=acts):
                yield url
        except DatabaseError as trouble:
            raise NeedsHuman(f"{why(trouble)} ({place_of(url)}, asked {asked})") from None


@asynccontextmanager
async def store_of(settings: Settings, asked: str, *, acts: bool = False) -> AsyncIterator[Store]:
    if not has_encryption_key(settings):
        settings = only_looking(settings)
    async with reached(settings, asked, acts=acts) as url, open_store(settings, url) as store:
        yield store


def read_settings_to_act(config: Path | None) -> Settings:
    try:
        return read_settings(config)
    except typer.Exit:
        complain(
            "nothing was done: mend the configuration first (gateway check). A gateway that runs goes on"
            " under the one before; its console and its API take this meanwhile."
        )
        raise


def with_store(
    config: Path | None, asked: str, work: Callable[[Store], Awaitable[int]], *, acts: bool = True
) -> int:
    """By a configuration that is good."""
    return go(_work(read_settings_to_act(config), asked, work, acts=acts))


def with_store_to_look(config: Path | None, asked: str, work: Callable[[Store], Awaitable[int]]) -> int:
    """Also where the configuration is no good, if it says where the database is; it has failed all the
    same."""
    environment = process_environment()
    try:
        settings = read_settings(config)
    except typer.Exit:
        try:
            settings = load_whereabouts(config or config_path(environment), environment)
        except Misconfigured:
            raise typer.Exit(FAILED) from None
        complain("what follows is from the database that it names; a gateway that runs goes on as before")
        go(_work(settings, asked, work))
        return FAILED
    return go(_work(settings, asked, work))


async def _work(
    settings: Settings, asked: str, work: Callable[[Store], Awaitable[int]], *, acts: bool = False
) -> int:
    async with store_of(settings, asked, acts=acts) as store:
        return await work(store)
