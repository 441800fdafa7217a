"""What a job's page says to who has to help: why in the peer's own words, what then mends it, and how long
what is under way usually takes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.daemon.test_commands import gateway
from tests.peers.chromium import enter, look_at, without_complaints
from tests.peers.gateway import TOKENS, Hospital, hospital
from tests.peers.ris import Ris, ris

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

TOLD, SLOW = "told", "slow"
REFUSAL = "Zyxwvut is unknown here"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listener() -> AsyncIterator[Ris]:
    async with ris() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    tmp_path_factory: pytest.TempPathFactory, records: str, listener: Ris
) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path_factory.mktemp("house"), records) as opened:
        opened.configuration["destinations"]["ris"] = {
            "kind": "hl7",
            "host": "127.0.0.1",
            "port": listener.port,
        }
        applications = opened.configuration["departments"]["emergency"]["applications"]
        applications[TOLD] = {**opened.application, "display_name": "Told", "deliver": ["ris"]}
        applications[SLOW] = {**opened.application, "display_name": "Slow", "deliver": ["vna"]}
        await opened.start()
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: BrowserContext, house: Hospital) -> AsyncIterator[Page]:
    await browser.clear_cookies()
    async with without_complaints(browser, house.gateway.url) as opened:
        await enter(opened, house.gateway.url, TOKENS["operator"])
        await expect(opened.get_by_role("heading", name="Now", exact=True)).to_be_visible()
        yield opened


async def shown(house: Hospital, job: str, *more: str) -> str:
    """By `gateway jobs show`."""
    config = str(house.folder / "gateway.yaml")
    code, out, err = await gateway("jobs", "show", job, *more, GATEWAY_CONFIG=config)
    assert code == 0, err
    return " ".join(out.split())


async def looked_at(page: Page, name: str) -> None:
    """At a desk and on a telephone, by day and by night."""
    assert [each for scheme in ("light", "dark") for each in await look_at(page, name, scheme)] == []
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_what_the_ris_said_and_what_then_helps_stand_where_one_looks(
    page: Page, house: Hospital, listener: Ris
) -> None:
    listener.answers, listener.words = ["AE"], REFUSAL
    patient = house.admit(1)
    job = (await house.ask(application=TOLD, study_instance_uid=patient.study))["id"]
    told = await house.settled(job, "held")
    advice = "Its log says why: have it accept such messages, then resume the job."
    assert told["error"]["advice"] == advice
    assert REFUSAL in json.dumps(told["said"])
    assert advice in await shown(house, job)
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    matter = page.locator(".matter-card")
    await expect(matter).to_contain_text(advice)
    await expect(matter.locator("q").first).to_have_text(REFUSAL)
    await looked_at(page, "job-refused")
    history = page.locator("details", has=page.get_by_text("Event by event"))
    await history.locator("summary").click()
    await expect(history).to_contain_text(REFUSAL)
    await page.get_by_role("button", name="Sign out").click()
    await enter(page, house.gateway.url, TOKENS["viewer"])
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    await expect(matter).to_contain_text(advice)
    assert REFUSAL not in await page.content()
    await house.api("POST", f"jobs/{job}/resume")
    await house.settled(job, "done")


async def test_a_paused_vendors_job_says_who_paused_it_and_is_let_go_on_from_its_page(
    page: Page, house: Hospital
) -> None:
    await house.api("POST", "adapters/milvue/pause", {"why": "its server is being changed"})
    patient = house.admit(1)
    job = (await house.ask(application=SLOW, study_instance_uid=patient.study))["id"]
    async with asyncio.timeout(60):
        while not (told := (await house.api("GET", f"jobs/{job}"))[1])["waits"]:
            await asyncio.sleep(0.05)
    assert told["waits"]["why"].endswith("this analysis starts once it is unpaused")
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    matter = page.locator(".matter-card")
    await expect(matter).to_contain_text("its server is being changed")
    await expect(matter).to_contain_text("Paused by operator")
    await expect(matter).not_to_contain_text("by itself")
    await expect(matter.get_by_role("link", name="Retry now")).to_have_count(0)
    await looked_at(page, "job-vendor-paused")
    await matter.get_by_role("button", name="Unpause Milvue").click()
    await expect(page).to_have_url(re.compile(f"/jobs/{job}"))
    await house.settled(job, "done")
    await page.get_by_role("button", name="Sign out").click()
    await enter(page, house.gateway.url, TOKENS["viewer"])
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    await expect(page.get_by_role("button", name="Unpause")).to_have_count(0)


async def test_a_person_can_tell_several_studies_apart_or_take_none(page: Page, house: Hospital) -> None:
    patient = house.admit(2)
    house.admit(1, slide=False, twin_of=patient)
    for uid in patient.instances:
        house.archive.instances[uid].header.StudyDescription = "Hand oblique"
    asked: dict[str, Any] = {"application": SLOW, "accession_number": patient.accession}
    job = (await house.ask(**asked))["id"]
    await house.settled(job, "held")
    header = house.archive.instances[patient.instances[0]].header
    moment = str(header.StudyTime)
    time = f"{moment[:2]}:{moment[2:4]}"
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    choices = page.get_by_role("radio")
    await expect(choices).to_have_count(2)
    mine = page.locator("label", has_text=patient.study)
    for words in (time, str(header.Modality), str(header.StudyDescription), "1 series, 2 instances"):
        await expect(mine).to_contain_text(words)
    await expect(page.locator("label").filter(has_text="1 series, 1 instance")).to_be_visible()
    assert f"{time}, {header.Modality}, {header.StudyDescription}, 1 series, 2 instances" in await shown(
        house, job
    )
    await looked_at(page, "job-choice")
    await page.locator(".matter-card").get_by_role("link", name="None is right: cancel").click()
    await expect(page.get_by_role("heading", name="Cancel 1 job?")).to_be_focused()
    await page.get_by_role("button", name="Cancel 1 job").click()
    await expect(page.locator(".matter-card").get_by_role("heading")).to_have_text("Cancelled by operator.")
    await looked_at(page, "job-cancelled")


async def test_a_job_under_way_says_since_when_how_long_that_takes_and_when_it_will_be_held(
    page: Page, house: Hospital
) -> None:
    for _ in range(5):
        patient = house.admit(1)
        job = (await house.ask(application=SLOW, study_instance_uid=patient.study))["id"]
        await house.settled(job, "done")
    patient = house.admit(1)
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    job = (await house.ask(application=SLOW, study_instance_uid=patient.study))["id"]
    await house.settled(job, "analysing")
    matter = page.locator(".matter-card")
    await page.goto(f"{house.gateway.url}/jobs/{job}")
    await expect(matter).to_contain_text(re.compile(r"Milvue works on it since \d\d:\d\d"))
    await expect(matter).to_contain_text(re.compile(r"usually [\d.]+ m?s"))
    await expect(matter).to_contain_text(re.compile(r"held at \d\d:\d\d if there is no result by then"))
    await expect(matter).not_to_contain_text("Waits until")
    await looked_at(page, "job-analysing")
    patient = house.admit(1)
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    other = (await house.ask(study_instance_uid=patient.study))["id"]
    await house.settled(other, "analysing")
    await page.goto(f"{house.gateway.url}/jobs/{other}")
    await expect(matter).to_contain_text("Milvue works on it since")
    await expect(matter).not_to_contain_text("usually")
    for each in (job, other):
        await house.api("POST", f"jobs/{each}/cancel")


async def test_looking_again_is_answered_on_the_spot_and_a_failed_job_is_no_part_of_all_is_well(
    page: Page, house: Hospital
) -> None:
    house.archive.front.faults.append(Fault(status=503))
    patient = house.admit(1)
    job = (await house.ask(application=SLOW, study_instance_uid=patient.study))["id"]
    looks = "It is mended: look again now"
    for place in ("", "peers", f"jobs/{job}"):
        await page.goto(f"{house.gateway.url}/{place}")
        await page.get_by_role("button", name=looks).click()
        told = page.get_by_role("status").filter(has_text=re.compile(r"Looked \d\d:\d\d:\d\d\b.*: .*vna"))
        await expect(told).to_have_text(re.compile("still|tries it now"))  # each fourth look is a job's try
    await looked_at(page, "job-looked")
    house.archive.front.faults.clear()
    await page.get_by_role("button", name=looks).click()
    await expect(page.get_by_role("status").filter(has_text="answers again")).to_be_visible()
    await house.settled(job, "done")
    unknown = (await house.ask(accession_number="NOBODY-HAS-IT"))["id"]
    await house.settled(unknown, "failed")
    await page.goto(house.gateway.url)
    await expect(page.get_by_text("All is well")).to_have_count(0)
    failures = page.get_by_role("link", name="1 job failed today")
    await expect(failures).to_be_visible()
    await looked_at(page, "now-failed")
    await failures.click()
    await expect(page.locator(f"#job-{unknown}")).to_be_visible()
