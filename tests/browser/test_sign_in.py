"""Signing in and out as people do it, in Debian's Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from oidc_provider_mock import User, run_server_in_thread
from playwright.async_api import BrowserContext, Page, expect

from tests.peers.chromium import chromium, enter, look_at, without_complaints
from tests.peers.gateway import TOKENS, Hospital, hospital
from tests.peers.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the mock's own libraries
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hospital]:
    port = free_port()
    ada = User(sub="ada", claims={"preferred_username": "Ada", "groups": ["imaging-it"]})
    with run_server_in_thread(user_claims=(ada,)) as service:
        async with hospital(tmp_path_factory.mktemp("house")) as opened:
            opened.configuration["listen"]["port"] = port
            opened.configuration["public_url"] = f"http://127.0.0.1:{port}"
            opened.configuration["console"] = {
                "oidc": {
                    "issuer": f"http://localhost:{service.server_port}",
                    "client_id": "gateway",
                    "client_secret": "secret-of-the-console",
                    "roles": {"operator": ["imaging-it"]},
                }
            }
            await opened.start()
            yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def browser(tmp_path: Path) -> AsyncIterator[BrowserContext]:
    async with chromium(tmp_path / "profile") as context:
        yield context


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: BrowserContext, house: Hospital) -> AsyncIterator[Page]:
    async with without_complaints(browser, house.gateway.url) as opened:
        yield opened


async def sign_in(page: Page, house: Hospital, token: str) -> None:
    await enter(page, house.gateway.url, token)


async def test_by_token_in_and_out(page: Page, house: Hospital) -> None:
    await sign_in(page, house, "a guess")
    await expect(page.get_by_role("alert")).to_contain_text("isn't known here")
    await sign_in(page, house, TOKENS["operator"])
    await expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    await expect(page.locator(".badge")).to_have_text("operator")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await page.goto(house.gateway.url)
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_by_the_hospitals_own_account(page: Page, house: Hospital) -> None:
    await page.goto(house.gateway.url)
    await page.get_by_role("link", name="Use your hospital account").click()
    await page.get_by_role("button", name="ada").click()
    await expect(page.locator(".who .name")).to_have_text("Ada")
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_another_sites_form_does_nothing(
    page: Page, browser: BrowserContext, house: Hospital, tmp_path: Path
) -> None:
    await sign_in(page, house, TOKENS["admin"])
    await expect(page.locator(".badge")).to_have_text("admin")
    token = await page.locator("input[name=csrf]").first.get_attribute("value")
    evil = tmp_path / "evil.html"
    evil.write_text(
        f'<form method="post" action="{house.gateway.url}/sign-out">'
        f'<input name="csrf" value="{token}"><button>Win a prize</button></form>'
    )
    elsewhere = await browser.new_page()
    await elsewhere.goto(evil.as_uri())
    await elsewhere.get_by_role("button").click()
    await elsewhere.wait_for_url(f"{house.gateway.url}/**")
    await page.reload()
    await expect(page.locator(".badge")).to_have_text("admin")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_every_screen_and_everybody(page: Page, house: Hospital, scheme: str) -> None:
    await page.goto(house.gateway.url)
    barriers = await look_at(page, "sign-in", scheme)
    await sign_in(page, house, "a guess")
    await expect(page.get_by_role("alert")).to_be_visible()
    barriers += await look_at(page, "sign-in-refused", scheme)
    await sign_in(page, house, TOKENS["viewer"])
    await expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    barriers += await look_at(page, "now-well", scheme)
    await page.goto(f"{house.gateway.url}/audit")
    await expect(page.get_by_role("alert")).to_be_visible()
    barriers += await look_at(page, "refused", scheme)
    for place in ("jobs", "quality"):
        await page.goto(f"{house.gateway.url}/{place}")
        barriers += await look_at(page, f"{place}-empty", scheme)
    assert barriers == []
