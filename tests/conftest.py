"""What every room's tests may lean on: one real PostgreSQL per test process, a fresh database per test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from urllib.parse import urlsplit

import psycopg
import pytest
import pytest_asyncio
import structlog
from cryptography.fernet import Fernet
from hypothesis import settings

from gateway.embedded import server as embedded
from gateway.jobs.cipher import Cipher
from gateway.jobs.schema import migrate
from gateway.jobs.store import Store

settings.register_profile("busy", deadline=None)  # a machine at work on much else takes its time
settings.load_profile("busy")
_numbers = count(1)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that was run in here has set the log up for itself, with an output that is closed by now."""
    yield
    structlog.reset_defaults()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The url of a server that lives as long as this test process; it holds a migrated `template`."""
    async with embedded.serve(tmp_path_factory.mktemp("postgres"), fast=True) as url:
        _tell(url, "CREATE DATABASE template")
        await asyncio.to_thread(migrate, database_at(url, "template"))
        yield url


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """A database of one's own with this release's tables."""
    # Copying the files takes a third of what writing them through the log does.
    with made_database(postgres, "TEMPLATE template STRATEGY file_copy") as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """A database of one's own without any table."""
    with made_database(postgres, "") as url:
        yield url


@pytest.fixture(scope="session")
def secret_key() -> str:
    return Fernet.generate_key().decode()


@pytest_asyncio.fixture
async def open_store(secret_key: str) -> AsyncIterator[Callable[[str], Store]]:
    """Makes stores that are closed when the test ends."""
    opened: list[Store] = []

    def make(url: str) -> Store:
        opened.append(Store(url, Cipher([secret_key]), pool_size=4))
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Callable[[str], Store], database_url: str) -> Store:
    return open_store(database_url)


def database_at(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def made_database(server: str, how: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _tell(server, f"CREATE DATABASE {name} {how}")
    try:
        yield database_at(server, name)
    finally:
        _tell(server, f"DROP DATABASE {name} WITH (FORCE)")


def _tell(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
