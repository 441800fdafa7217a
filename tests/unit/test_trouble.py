"""A database that hangs is told as that: who hears of the network looks in the wrong place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.jobs.store.trouble import why


@asynccontextmanager
async def hung() -> AsyncIterator[str]:
    """It takes connections, as a process that is stopped does, and says nothing."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"postgresql+psycopg://gateway@127.0.0.1:{server.sockets[0].getsockname()[1]}/gateway"
    finally:
        server.close()


async def test_one_that_hangs_is_looked_at_before_the_network() -> None:
    async with hung() as url:
        engine = create_async_engine(url, connect_args={"connect_timeout": 2})
        with pytest.raises(SQLAlchemyError) as caught:
            await engine.connect()
        await engine.dispose()
    said = why(caught.value)
    assert said.startswith("the database doesn't answer in time: its server hangs")
    assert "firewall" not in said
