"""What the console's tests share: the gateway that they look at, and those who look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.lively import Lively, configure, fill, remember
from tests.conftest import made_database
from tests.peers.chromium import chromium, enter, without_complaints
from tests.peers.gateway import TOKENS, hospital

expect.set_options(timeout=60_000)  # of a busy machine


@pytest.fixture(scope="module")
def records(postgres: str) -> Iterator[str]:
    with made_database(postgres, "TEMPLATE template") as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lively(tmp_path_factory: pytest.TempPathFactory, records: str) -> AsyncIterator[Lively]:
    async with hospital(tmp_path_factory.mktemp("house"), records) as house:
        configure(house)
        await house.start()
        opened = Lively(house, records)
        await fill(opened)
        await remember(opened)
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    async with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: BrowserContext, lively: Lively) -> AsyncIterator[Page]:
    await browser.clear_cookies()
    async with without_complaints(browser, lively.url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def operator(page: Page, lively: Lively) -> Page:
    await enter(page, lively.url, TOKENS["operator"])
    await expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    return page


@pytest_asyncio.fixture(loop_scope="module")
async def plain(lively: Lively, tmp_path: Path) -> AsyncIterator[Page]:
    """An operator's, whose browser runs no scripts."""
    async with (
        chromium(tmp_path / "profile", scripts=False) as browser,
        without_complaints(browser, lively.url) as opened,
    ):
        await enter(opened, lively.url, TOKENS["operator"])
        yield opened
