"""A page that stays open while the gateway is gone says so, and takes nothing that it showed for true."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.peers.chromium import chromium, enter, find_barriers
from tests.peers.gateway import TOKENS, hospital

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

TOLD = re.compile(r"^\s*As of \d\d:\d\d: the gateway doesn’t answer\s*$")
WELL = "All is well: there is nothing to do."


async def lost(page: Page) -> None:
    """In place of the verdict, on a desk's screen as on a telephone's."""
    for width in (1280, 390):
        await page.set_viewport_size({"width": width, "height": 800})
        await expect(page.get_by_role("alert")).to_have_text(TOLD)
        await expect(page.get_by_role("alert")).to_be_in_viewport()
        await expect(page.get_by_text(WELL)).to_be_hidden()


async def live(page: Page) -> None:
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_text(WELL)).to_be_visible()


async def test_an_open_page_says_that_the_gateway_hangs_and_that_it_is_gone(
    tmp_path: Path, records: str
) -> None:
    async with hospital(tmp_path, records) as house, chromium(tmp_path / "profile") as browser:
        await house.start()
        page = await browser.new_page()
        await enter(page, house.gateway.url, TOKENS["operator"])
        await live(page)
        house.gateway.process.send_signal(signal.SIGSTOP)
        try:
            await lost(page)
            assert await find_barriers(page) == []
        finally:
            house.gateway.process.send_signal(signal.SIGCONT)
        await live(page)
        await house.gateway.kill()
        await lost(page)
