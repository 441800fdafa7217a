"""Debian's Chromium, as a person would use it; and axe-core, which finds what keeps people out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_AXE = Axe()
PICTURES = Path(os.environ.get("CONSOLE_PICTURES", "build/pictures"))


@asynccontextmanager
async def chromium(profile: Path, *, scripts: bool = True) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile, executable_path=_CHROMIUM, args=_ARGUMENTS, java_script_enabled=scripts
        )
        context.set_default_timeout(60_000)
        yield context
        await context.close()


@asynccontextmanager
async def without_complaints(browser: BrowserContext, url: str) -> AsyncIterator[Page]:
    """What the browser complains of, the policy's violations among it, fails the test."""
    complaints: list[str] = []
    page = await browser.new_page()

    def note(said: ConsoleMessage) -> None:
        if said.type == "error" and url in said.location.get("url", ""):
            complaints.append(said.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await page.close()
    assert [each for each in complaints if "status of 4" not in each] == []


async def enter(page: Page, url: str, token: str) -> None:
    await page.goto(url)
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def look_at(page: Page, name: str, scheme: str) -> list[str]:
    """What keeps people out of the page that is shown, on a desk's screen and on a telephone's; a picture of
    each is kept, to be looked at."""
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    found = []
    for width in (1280, 390):
        await page.set_viewport_size({"width": width, "height": 800})
        await page.screenshot(path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True)
        barriers = await find_barriers(page)
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            barriers.append("it is wider than the screen")
        found += [f"{name}, {scheme}, {width}: {each}" for each in barriers]
    return found


async def find_barriers(page: Page) -> list[str]:
    found = await _AXE.run(page)
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]}"
        for each in found.response["violations"]
        for node in each["nodes"]
    ]
