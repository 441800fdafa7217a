"""Milvue as it answers when it is asked what it is asked for, and its adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from adapters.milvue.adapter import Milvue
from gateway.suite.studies import STUDY
from tests.peers.milvue_vendor import (
    MilvueVendor,
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def vendor() -> AsyncIterator[MilvueVendor]:
    vendor = MilvueVendor()
    await vendor.start()
    vendor.status[STUDY] = "done"
    yield vendor
    await vendor.stop()


@pytest.fixture
def adapter(vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path) -> Milvue:
    return vendor.adapter(session, tmp_path)
