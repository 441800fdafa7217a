"""A pooler between us and PostgreSQL: by the session it may be, by the transaction it is refused."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psycopg
import pytest

from gateway.contract import NeedsHuman
from gateway.jobs.engine import Engine
from gateway.jobs.schema import require_sessions
from gateway.jobs.states import State
from tests.db.crew import BRISK, Script, ask_for, reaches
from tests.peers.pooler import pooler


def test_by_the_transaction_it_is_refused_with_a_sentence(database_url):
    with pooler(database_url, "transaction") as url:
        with pytest.raises(NeedsHuman, match="by the transaction") as caught:
            require_sessions(url)
        assert "pool_mode = session" in caught.value.advice
        with psycopg.connect(url) as another:  # one of the shared sessions is somebody else's meanwhile
            another.execute("SELECT 1")
            with pytest.raises(NeedsHuman):
                require_sessions(url)


async def test_the_gateway_says_so_instead_of_starting(
    database_url: str, secret_key: str, tmp_path: Path
) -> None:
    settings = {"GATEWAY_SECRET_KEYS": f'["{secret_key}"]', "GATEWAY_DATA_DIR": str(tmp_path)}
    with pooler(database_url, "transaction") as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run"),
            env=os.environ | settings | {"GATEWAY_DATABASE_URL": url, "GATEWAY_LISTEN__PORT": "0"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complained = await process.communicate()
    assert process.returncode == 1
    assert b"by the transaction" in complained and b"pool_mode = session" in complained
    assert b"Traceback" not in complained


async def test_by_the_session_it_is_as_good_as_none(database_url, open_store):
    require_sessions(database_url)
    with pooler(database_url, "session") as url:
        require_sessions(url)
        store = open_store(url)
        job, _ = await store.create(ask_for())
        async with Engine(store, url, Script(), {}, BRISK).working():
            await reaches(store, job, State.DONE)
        await store.close()
