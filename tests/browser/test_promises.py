"""What the console promises on every page and for every act: to keyboards, without scripts, on paper."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.lively import Lively, places
from tests.peers.chromium import PICTURES
from tests.peers.gateway import TRAUMA

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

STRANGE = Path(__file__).with_name("strange.js").read_text()
SIGNS = """() => [...document.querySelectorAll(".state")].map((one) => [
  one.textContent.trim(), getComputedStyle(one).color, one.querySelector("svg").innerHTML])"""


async def test_every_page_keeps_what_is_promised_of_all(operator: Page, lively: Lively) -> None:
    """The search, signs, captions, zones, an order for keyboards; each state looks the same everywhere."""
    found, signs = [], defaultdict(set)
    for name, place in {**places(lively), "refused": "/nope", "unknown": "/jobs/nobody"}.items():
        for width in (1280, 390):
            await operator.set_viewport_size({"width": width, "height": 800})
            await operator.goto(lively.url + place)
            found += [f"{name}, {width}: {each}" for each in await operator.evaluate(STRANGE)]
        for word, colour, shape in await operator.evaluate(SIGNS):
            signs[word].add((colour, shape))
    assert found == []
    assert len(signs) > 10
    assert {word: looks for word, looks in signs.items() if len(looks) > 1} == {}


async def test_what_is_broken_is_told_with_all_that_is_promised(operator: Page, lively: Lively) -> None:
    """A sentence, an advice, since when, how many jobs, and what mends it."""
    await operator.goto(lively.url)
    causes = await operator.locator("article.cause").all()
    assert len(causes) >= 4
    for cause in causes:
        told = await cause.inner_text()
        assert re.match(r"[A-Z0-9].*[.…]$", await cause.get_by_role("heading").inner_text()), told
        assert await cause.locator(".advice").count() == 1, told
        assert await cause.locator("time").count() >= 1 and "Since" in told
        assert await cause.get_by_role("button").count() == 1, told
        assert (
            "configuration" in told
            or await cause.get_by_role("link", name=re.compile(r"^\d+ jobs?$")).count()
        )
        assert not re.search(r"Traceback|Error:|Exception|None\b|\b[45]\d\d\b", told), told


async def go_to(page: Page, wanted: str) -> None:
    """By the key that everybody has; what is reached shows that it is."""
    for _ in range(200):
        await page.keyboard.press("Tab")
        here = await page.evaluate(
            """() => { const at = document.activeElement, ring = getComputedStyle(at);
              if (at === document.body) return null;
              const words = at.ariaLabel || at.labels?.[0]?.textContent || at.textContent;
              return [words.trim(), ring.outlineStyle, parseFloat(ring.outlineWidth)] }"""
        )
        if here is None:  # it begins again
            continue
        assert here[1] == "solid" and here[2] >= 2, here
        if re.fullmatch(wanted, " ".join(here[0].split())):
            return
    raise AssertionError(f"{wanted} can't be reached")


async def press(page: Page, wanted: str, key: str = "Enter") -> None:
    await go_to(page, wanted)
    await page.keyboard.press(key)


async def last_act(page: Page, lively: Lively) -> str:
    """As the audit shows it, beside looking."""
    await page.goto(f"{lively.url}/audit")
    rows = page.locator("table.audit tbody tr").filter(has_not_text="looked at")
    return " ".join((await rows.first.inner_text()).split())


async def twins(lively: Lively, number: int = 1) -> list[str]:
    """Jobs that are held, since nobody can know which study is meant."""
    patient = lively.house.admit(1)
    lively.house.admit(slide=False, twin_of=patient)
    jobs = [(await lively.house.ask(accession_number=patient.accession))["id"] for _ in range(number)]
    for job in jobs:
        await lively.house.settled(job, "held")
    return jobs


async def test_each_act_goes_by_keyboard_alone_and_stands_in_the_audit(
    operator: Page, lively: Lively
) -> None:
    keys = operator.keyboard
    await operator.goto(f"{lively.url}/peers")
    await press(operator, "Pause….*")
    paused = await operator.evaluate("document.activeElement.closest('li').id")
    await keys.press("Tab")
    await keys.type("its licence is being renewed")
    await keys.press("Enter")
    again = operator.locator(f"[id='{paused}']")
    await expect(again.get_by_text("paused", exact=True)).to_be_visible()
    assert "operator pause why: its licence is being renewed" in await last_act(operator, lively)

    await operator.goto(f"{lively.url}/peers#{paused}")
    await press(operator, "Unpause")
    await expect(again.get_by_text("paused", exact=True)).to_have_count(0)
    assert "operator unpause" in await last_act(operator, lively)

    await operator.goto(lively.url)
    await press(operator, "It is mended: look again now")
    await expect(operator.get_by_role("status").filter(has_text=re.compile("Looked|Asked"))).to_be_visible()
    assert "operator try again" in await last_act(operator, lively)

    [job] = await twins(lively)
    await operator.goto(f"{lively.url}/jobs/{job}")
    await go_to(operator, ".*[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
    await keys.press("Space")
    await press(operator, "Go on with this study")
    await expect(operator.get_by_role("status").filter(has_text="Resumed")).to_be_visible()
    assert f"operator resume {job[:8]}" in await last_act(operator, lively)

    await lively.house.settled(job, "done")
    await operator.goto(f"{lively.url}/jobs/{job}")
    await press(operator, "Show this study to the vendor…")
    await press(operator, "Show 1 study")
    await expect(operator.get_by_role("status").filter(has_text="Shown to the vendor")).to_be_visible()
    assert job[:8] in await last_act(operator, lively)

    await operator.goto(f"{lively.url}/jobs/{job}")
    await press(operator, "Have it analysed again…")
    await expect(operator.get_by_role("heading", name="Retry 1 job?")).to_be_visible()
    await press(operator, "Retry 1 job")
    await expect(operator.get_by_role("status").filter(has_text="Retried")).to_be_visible()
    assert "operator retry" in await last_act(operator, lively)

    several = await twins(lively, 2)
    await operator.goto(f"{lively.url}/jobs?state=held&application={TRAUMA}")
    for each in several:
        await press(operator, each[:8], "x")
    await press(operator, "Cancel")
    await expect(operator.get_by_role("heading", name="Cancel 2 jobs?")).to_be_visible()
    await press(operator, "Cancel 2 jobs")
    await expect(operator.get_by_role("status").filter(has_text="2 jobs cancelled")).to_be_visible()
    assert "operator cancel" in await last_act(operator, lively)

    await operator.goto(f"{lively.url}/jobs?state=failed")
    await press(operator, "Retry all…")
    await expect(operator.get_by_role("heading", name="Retry 1 job?")).to_be_visible()
    await press(operator, "Retry 1 job")
    await expect(operator.get_by_role("status").filter(has_text="1 job retried")).to_be_visible()
    assert "operator retry" in await last_act(operator, lively)


async def test_the_keyboards_own_ways(operator: Page, lively: Lively) -> None:
    keys = operator.keyboard
    for letter, heading in (("j", "Jobs"), ("p", "Peers"), ("q", "Vendors’ quality"), ("n", "Now")):
        await operator.wait_for_load_state()  # a page hears no key before that
        await keys.press("g")
        await keys.press(letter)
        await expect(operator.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    await operator.goto(f"{lively.url}/jobs")
    rows = operator.locator("a.row")
    await keys.press("j")
    await keys.press("j")
    await expect(rows.nth(1)).to_be_focused()
    await keys.press("k")
    await expect(rows.first).to_be_focused()
    await keys.press("x")
    await expect(operator.locator("input.pick").first).to_be_checked()
    await keys.press("x")
    await keys.press("Enter")
    await expect(operator).to_have_url(re.compile("/jobs/[0-9a-f-]{36}"))
    await keys.press("/")
    await expect(operator.get_by_role("searchbox")).to_be_focused()
    await keys.press("Escape")
    await expect(operator.get_by_role("searchbox")).not_to_be_focused()


async def test_nothing_moves_under_the_hands_of_who_types_or_reads(operator: Page, lively: Lively) -> None:
    await operator.goto(f"{lively.url}/jobs/{lively.jobs['done']}")
    history = operator.locator("details", has=operator.get_by_text("Event by event"))
    await history.locator("summary").click()
    swapped = (
        "new Promise((tell) => document.body.addEventListener('htmx:afterSettle', tell, { once: true }))"
    )
    await operator.evaluate(
        f"() => {{ const done = {swapped}; htmx.trigger(document.body, 'moved'); return done.then(() => 1) }}"
    )
    await expect(history).to_have_attribute("open", "")

    await operator.goto(f"{lively.url}/peers")
    vendor = operator.locator("[id='adapters.milvue']")
    await vendor.get_by_text("Pause…").click()
    await vendor.get_by_label("Why").fill("half a sen")
    patient = lively.house.admit(1)
    job = (await lively.house.ask(study_instance_uid=patient.study))["id"]
    await lively.house.settled(job, "done")
    await operator.wait_for_timeout(3_000)  # longer than a page waits before it shows what has moved
    await expect(vendor.get_by_label("Why")).to_have_value("half a sen")
    await expect(vendor.get_by_label("Why")).to_be_focused()


async def test_who_wants_no_motion_sees_none(operator: Page, lively: Lively) -> None:
    await operator.emulate_media(reduced_motion="reduce")
    for name, place in places(lively).items():
        await operator.goto(lively.url + place)
        moving = await operator.evaluate(
            """() => [...document.querySelectorAll("*")].map((one) => getComputedStyle(one)).filter((look) =>
              parseFloat(look.transitionDuration) || look.animationName !== "none"
              || look.scrollBehavior !== "auto").length"""
        )
        assert moving == 0, name
    await operator.goto(f"{lively.url}/jobs/{lively.jobs['done']}/pictures/1")
    drawn = operator.locator(".openseadragon-canvas svg polyline")
    await expect(drawn).to_be_visible()
    moved = await operator.evaluate(
        """() => { const drawn = document.querySelector(".openseadragon-canvas svg"), seen = new Set();
          const note = () => seen.add(drawn.getBoundingClientRect().width);
          note(); document.querySelector(".tools button").click();
          return new Promise((tell) => { let left = 30;
            const step = () => { note(); left -= 1; left ? requestAnimationFrame(step) : tell(seen.size) };
            requestAnimationFrame(step); }) }"""
    )
    assert moved == 2  # as it was, and enlarged
    await operator.emulate_media(reduced_motion="no-preference")


async def test_a_jobs_page_is_whole_on_paper(operator: Page, lively: Lively) -> None:
    job = lively.jobs["done"]
    [(first,)] = await lively.rows("SELECT hash FROM job_events WHERE job_id = %s ORDER BY id LIMIT 1", job)
    await operator.goto(f"{lively.url}/jobs/{job}")
    told = operator.get_by_text(f"Job {job}")
    event = operator.get_by_role("row").filter(has_text=str(first)[:12])
    await expect(told).to_be_hidden()
    await expect(event).to_be_hidden()
    await operator.emulate_media(media="print")
    await expect(told).to_be_visible()
    await expect(operator.get_by_text(re.compile("printed .* by operator"))).to_be_visible()
    await expect(event).to_be_visible()
    await expect(event).to_contain_text(str(first))
    for part in ("Its way", "Proof", "Deliveries", "History"):
        await expect(operator.get_by_role("heading", name=part)).to_be_visible()
    for useless in (operator.get_by_role("searchbox"), operator.get_by_role("navigation")):
        await expect(useless).to_be_hidden()
    assert [each for each in await operator.locator(".button").all() if await each.is_visible()] == []
    await operator.screenshot(path=PICTURES / "job-done-print.png", full_page=True)
    assert len(await operator.pdf(format="A4")) > 10_000
    await operator.emulate_media(media="screen")


async def test_each_act_goes_without_scripts(plain: Page, lively: Lively) -> None:
    await plain.goto(f"{lively.url}/peers")
    spare = plain.locator("[id='destinations.spare']")
    await spare.get_by_text("Pause…").click()
    await spare.get_by_label("Why").fill("it is moved")
    await spare.get_by_role("button", name="Pause spare").click()
    await expect(spare.get_by_text("paused", exact=True)).to_be_visible()
    await spare.get_by_role("button", name="Unpause").click()
    await expect(spare.get_by_text("paused", exact=True)).to_have_count(0)
    ris = plain.locator("[id='destinations.ris']")
    await ris.get_by_role("button", name="look again now").click()
    await expect(plain.get_by_role("heading", name="Peers")).to_be_visible()

    held = await twins(lively, 2)
    await plain.goto(f"{lively.url}/jobs")
    await plain.get_by_label("Application").select_option(TRAUMA)
    await plain.get_by_role("button", name="Show").click()
    await plain.get_by_label("States").get_by_role("link", name="held").click()
    await plain.get_by_label("States").get_by_role("link", name="failed").click()
    await expect(plain.get_by_label("States").locator("[aria-current]")).to_have_text(
        [re.compile("held"), re.compile("failed")]
    )
    for each in held:
        await plain.get_by_label(f"Choose job {each[:8]}").check()
    await plain.get_by_role("button", name="Cancel", exact=True).click()
    await plain.get_by_role("button", name="Cancel 2 jobs").click()
    await expect(plain.get_by_role("status").filter(has_text="2 jobs cancelled")).to_be_visible()

    await plain.goto(f"{lively.url}/jobs/{lively.jobs['done']}")
    await plain.get_by_text("Show this study to the vendor…").click()
    await plain.get_by_role("button", name="Show 1 study").click()
    await expect(plain.get_by_role("status").filter(has_text="Shown to the vendor")).to_be_visible()
    await plain.get_by_role("button", name="Sign out").click()
    await expect(plain.get_by_role("heading", name="Sign in")).to_be_visible()
