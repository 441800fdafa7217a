"""The console as the person on call sees it: one gateway with something of everything, looked at in Debian's
Chromium, at a desk and on a telephone, by day and by night."""

from __future__ import annotations

import asyncio
import re
import uuid

import pytest
from playwright.async_api import Page, expect

from tests.browser.lively import HIP, Lively, places
from tests.peers.chromium import enter, look_at
from tests.peers.gateway import ARCHIVE_PASSWORD, PATIENCE, TOKENS, TRAUMA

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_every_screen_and_everybody(
    operator: Page, lively: Lively, scheme: str
) -> None:
    """axe-core finds nothing."""
    barriers = []
    for name, place in places(lively).items():
        answer = await operator.goto(lively.url + place)
        assert answer is not None and answer.status == 200, name
        barriers += await look_at(operator, name, scheme)
    assert barriers == []


@pytest.mark.parametrize(
    ("name", "reason", "advice", "step"),
    [
        ("held", "2 studies in vna match", "Choose the right one", "Go on with this study"),
        ("failed", "can't render the result", "or ask Milvue's support", "Begin again…"),
        (
            "undelivered",
            "the destination ris",
            "What to do",
            "It is mended: look again now",
        ),
        ("paused", "Milvue research is paused", "nothing is lost", "Unpause Milvue research"),
    ],
)
async def test_who_has_an_accession_number_finds_the_reason_and_the_next_step(
    operator: Page, lively: Lively, name: str, reason: str, advice: str, step: str
) -> None:
    """With the console open, whatever page it is at: one key, the number, Enter; and no scrolling."""
    await operator.goto(f"{lively.url}/audit")
    await operator.keyboard.press("/")
    await operator.keyboard.type(lively.patients[name].accession)
    await operator.keyboard.press("Enter")
    await expect(operator).to_have_url(f"{lively.url}/jobs/{lively.jobs[name]}")
    matter = operator.locator(".matter-card")
    await expect(matter.get_by_role("heading")).to_contain_text(reason)
    await expect(matter).to_contain_text(advice)
    next_step = matter.get_by_role("button", name=step).or_(matter.get_by_role("link", name=step))
    for each in (matter.get_by_role("heading"), matter.get_by_text(advice), next_step):
        await expect(each).to_be_in_viewport(ratio=1)


async def test_the_search_takes_any_identifier(operator: Page, lively: Lively) -> None:
    for known in (lively.jobs["done"], lively.jobs["done"][:8], lively.patients["done"].study):
        await operator.get_by_role("searchbox").fill(known)
        await operator.get_by_role("searchbox").press("Enter")
        await expect(operator).to_have_url(f"{lively.url}/jobs/{lively.jobs['done']}")
    await operator.get_by_role("searchbox").fill("NOBODY-KNOWS")
    await operator.get_by_role("button", name="Find").click()
    await expect(operator.get_by_text("No job has this identifier")).to_be_visible()
    await expect(operator.get_by_text("about to be located")).to_be_visible()


async def test_a_viewer_sees_nobodys_identity_and_an_operators_look_is_written_down(
    page: Page, lively: Lively
) -> None:
    patient, job = lively.patients["held"], lively.jobs["failed"]
    await enter(page, lively.url, TOKENS["viewer"])
    for place in ("/", "/jobs", f"/jobs/{lively.jobs['held']}", f"/jobs/{lively.jobs['done']}"):
        await page.goto(lively.url + place)
        shown = (await page.content()).replace("<wbr>", "")
        for each in (patient, lively.patients["done"]):
            assert each.accession not in shown and each.study not in shown, place
        assert await page.get_by_role("link", name="Retry").count() == 0
        assert await page.get_by_role("link", name="Audit").count() == 0
    refused = await page.goto(f"{lively.url}/jobs/act?do=cancel&id={job}")
    assert refused is not None and refused.status == 403
    assert await page.get_by_text("What was found").count() == 0
    for place in ("/audit", "/configuration", f"/jobs/{lively.jobs['done']}/pictures/1"):
        refused = await page.goto(lively.url + place)
        assert refused is not None and refused.status == 403
        told = page.get_by_role("alert")
        await expect(told).to_have_text("This takes the role operator; you have signed in as viewer.")
    await page.get_by_role("link", name="To the first page").click()
    await page.get_by_role("button", name="Sign out").click()
    await enter(page, lively.url, TOKENS["operator"])
    await page.goto(f"{lively.url}/jobs/{job}")
    await expect(page.get_by_text(lively.patients["failed"].study).first).to_be_visible()
    await page.reload()
    looked = (
        "SELECT count(*) FROM audit WHERE who = 'operator' AND what = 'looked at' AND job_id = %s"
        " AND detail ->> 'by' = 'console'"
    )
    assert await lively.rows(looked, job) == [(1,)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_was_found_is_drawn_on_its_image_and_enlarged_with_it(
    operator: Page, lively: Lively, scheme: str
) -> None:
    await operator.goto(f"{lively.url}/jobs/{lively.jobs['done']}")
    found = operator.locator("section", has=operator.get_by_role("heading", name="What was found"))
    await expect(found).to_contain_text("Fracture")
    await found.get_by_role("link", name="Show the picture").click()
    drawn = found.locator(".openseadragon-canvas svg")
    await expect(drawn.locator("polyline")).to_be_visible()
    await expect(drawn.locator("text")).to_contain_text("Fracture")
    await expect(found.locator("image")).to_have_count(0)  # it is the canvas that shows it now
    size = drawn.locator("polyline")
    before = await size.bounding_box()
    await found.get_by_role("button", name="Enlarge").click()
    async with asyncio.timeout(PATIENCE):
        while (
            (after := await size.bounding_box()) is None
            or not before
            or after["width"] < before["width"] * 1.2
        ):
            await asyncio.sleep(0.05)
    await found.get_by_role("button", name="Show the whole picture").click()
    assert await look_at(operator, "job-picture", scheme) == []
    nothing = await operator.goto(f"{lively.url}/jobs/{lively.jobs['failed']}/pictures/1")
    assert nothing is not None and nothing.status == 404


async def test_a_slide_is_shown_by_its_tiles_with_what_was_drawn_on_it(
    operator: Page, lively: Lively
) -> None:
    house = lively.house
    patient = house.admit(1)
    assert (await house.invoke(house.invocation(patient.slide)))[0] in (200, 201)
    [job] = await house.jobs_on(patient.slide)
    await house.settled(job["id"], "done")
    tiles = []
    operator.on(
        "response", lambda answer: tiles.append(answer) if re.search(r"/slide/\d+/", answer.url) else None
    )
    await operator.goto(f"{lively.url}/jobs/{job['id']}")
    link = operator.get_by_role("link", name="Open it in Sectra")
    await expect(link).to_have_attribute("href", f"https://pacs/view?n={patient.accession}#one")
    await operator.get_by_role("link", name="Show the slide").click()
    drawn = operator.locator(".openseadragon-canvas svg")
    await expect(drawn.locator("polyline").first).to_be_visible()
    await expect(drawn.locator("text").first).to_contain_text("abnormal")
    async with asyncio.timeout(PATIENCE):
        while not tiles:
            await asyncio.sleep(0.05)
    assert {each.status for each in tiles} == {200}
    assert await look_at(operator, "job-slide", "light") == []
    overview = await operator.request.get(f"{lively.url}/jobs/{job['id']}/slide/image")
    assert overview.status == 200 and (await overview.body()).startswith(b"\xff\xd8")
    house.sectra.kill_tokens()
    await operator.goto(f"{lively.url}/jobs/{job['id']}")
    await operator.get_by_role("link", name="Show the slide").click()
    await expect(operator.get_by_role("alert")).to_contain_text("Sectra")
    await operator.get_by_role("link", name="Show the picture in vna instead").click()
    await expect(operator.locator(".openseadragon-canvas svg polyline").first).to_be_visible()
    for wrong in ("slide/99/0_0", f"../{lively.jobs['done']}/slide"):
        assert (await operator.request.get(f"{lively.url}/jobs/{job['id']}/{wrong}")).status in (404, 502), (
            wrong
        )


async def test_a_picture_that_is_nowhere_any_more_says_so(operator: Page, lively: Lively) -> None:
    patient = lively.house.admit(1)
    job = (await lively.house.ask(study_instance_uid=patient.study))["id"]
    await lively.house.settled(job, "done")
    archive = lively.house.archive
    archive.instances = {uid: each for uid, each in archive.instances.items() if each.study != patient.study}
    await operator.goto(f"{lively.url}/jobs/{job}/pictures/1")
    await expect(operator.get_by_role("alert")).to_contain_text("no longer has the study")


async def test_every_number_leads_to_as_many_jobs(operator: Page, lively: Lively) -> None:
    numbers = []
    for link in await operator.locator("main a[href^='/jobs?']").all():
        found = re.match(r"([0-9]+)( jobs?)?$", (await link.inner_text()).strip())
        if found:
            numbers.append((int(found[1]), await link.get_attribute("href")))
    assert len(numbers) >= 5, numbers
    for count, place in numbers:
        await operator.goto(f"{lively.url}{place}")
        assert await operator.locator("table.list tbody tr").count() == count, place


async def test_a_list_is_live_filtered_and_acted_on(operator: Page, lively: Lively) -> None:
    await operator.goto(f"{lively.url}/jobs")
    await operator.locator("select[name=application]").select_option(TRAUMA)
    await expect(operator).to_have_url(re.compile(f"application={TRAUMA}"))
    patient = lively.house.admit(1)
    lively.house.admit(slide=False, twin_of=patient)
    new = [(await lively.house.ask(accession_number=patient.accession))["id"] for _ in range(2)]
    rows = [operator.locator(f"#job-{each}") for each in new]
    for row in rows:
        await expect(row.locator(".state")).to_have_text("held")
        await row.get_by_role("checkbox").check()
    await operator.get_by_role("button", name="Cancel", exact=True).click()
    await expect(operator.get_by_role("heading", name="Cancel 2 jobs?")).to_be_visible()
    await operator.get_by_role("button", name="Cancel 2 jobs").click()
    await expect(operator.get_by_role("status").filter(has_text="2 jobs cancelled")).to_be_visible()
    told = "SELECT count(*) FROM audit WHERE who = 'operator' AND what = 'cancel' AND job_id = ANY(%s)"
    assert await lively.rows(told, [uuid.UUID(each) for each in new]) == [(2,)]


async def test_what_changed_meanwhile_is_asked_again(operator: Page, lively: Lively) -> None:
    patient = lively.house.admit(1)
    lively.house.admit(slide=False, twin_of=patient)
    new = [(await lively.house.ask(accession_number=patient.accession))["id"] for _ in range(2)]
    for each in new:
        await lively.house.settled(each, "held")
    await operator.goto(f"{lively.url}/jobs/act?do=cancel&id={new[0]}&id={new[1]}")
    await lively.house.api("POST", f"jobs/{new[0]}/cancel")
    await operator.get_by_role("button", name="Cancel 2 jobs").click()
    await expect(operator.get_by_role("alert")).to_contain_text("1 job matches now, not 2")
    await operator.get_by_role("button", name="Cancel 1 job").click()
    await expect(operator.get_by_text("1 job cancelled")).to_be_visible()


async def test_what_a_person_stopped_goes_on_and_says_so_by_itself(operator: Page, lively: Lively) -> None:
    cause = operator.locator("article", has_text="Milvue research was paused by operator")
    await expect(cause).to_contain_text("The study is being closed")
    await expect(cause.get_by_role("link", name="1 job")).to_be_visible()
    await cause.get_by_role("button", name="Unpause").click()
    await expect(cause).to_have_count(0)
    await lively.house.settled(lively.jobs["paused"], "done")
    await expect(operator.locator("tr", has_text="Milvue research").get_by_label("1 done")).to_be_visible()


async def test_a_pause_says_why(operator: Page, lively: Lively) -> None:
    await operator.goto(f"{lively.url}/peers")
    vendor = operator.locator("[id='adapters.milvue']")
    await vendor.get_by_text("Pause…").click()
    await vendor.get_by_label("Why").fill("its server is being changed")
    await vendor.get_by_role("button", name="Pause milvue").click()
    await expect(vendor.get_by_text("paused", exact=True)).to_be_visible()
    await expect(vendor).to_contain_text("Its server is being changed")
    await expect(vendor.locator("code")).to_have_text("gateway unpause adapter milvue")
    await vendor.get_by_role("button", name="Unpause").click()
    await expect(vendor.get_by_role("heading").locator(".state")).to_have_text(
        re.compile("well|not asked yet")
    )
    spare = operator.locator("[id='destinations.spare']")
    await expect(spare.get_by_role("heading").locator(".state")).to_have_text("not asked yet")


async def test_what_shifted_at_a_vendor_is_seen_beside_what_was_usual(operator: Page, lively: Lively) -> None:
    await operator.get_by_role("link", name="Quality", exact=True).click()
    await expect(operator.get_by_text("1 rate has shifted")).to_be_visible()
    trauma = operator.locator(f"section[id='{TRAUMA}']")
    newer = trauma.get_by_role("region", name="Version 3.2.0")
    await expect(newer.get_by_text("accepted", exact=True)).to_be_visible()
    flagged = newer.locator("figure", has_text="more since")
    await expect(flagged.get_by_role("heading")).to_contain_text("Positive")
    await expect(flagged.get_by_role("img")).to_have_accessible_name(re.compile("outside the limits"))
    assert await flagged.locator(".outside").count() >= 3
    for words in ("changed by users", "deleted by users", "half within 1 min 4 s"):
        await expect(newer).to_contain_text(words)
    await newer.locator("summary").click()
    await expect(newer.get_by_role("row")).to_have_count(31)
    older = trauma.get_by_role("region", name="Version 3.1.4")
    await expect(older.get_by_text("not accepted")).to_be_visible()
    await expect(older).to_contain_text("Still learning")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_how_far_a_vendor_that_is_tried_agrees_is_seen_and_read_as_numbers(
    operator: Page, lively: Lively, scheme: str
) -> None:
    await operator.goto(f"{lively.url}/quality")
    tried = operator.locator(f"section[id='{HIP}']").get_by_role(
        "region", name="Shadow agreement with candidate"
    )
    for words in (
        "120 studies",
        "117 with a result of both",
        "of the shadow within 31 s",
        "of the shadow: 3 failed",
    ):
        await expect(tried).to_contain_text(words)
    await expect(tried.get_by_role("img")).to_have_accessible_name(re.compile("of .* outside the limits"))
    found = tried.get_by_role("region", name="finding by finding").get_by_role("row")
    await expect(found.get_by_role("rowheader")).to_have_text(["any finding", "effusion", "fracture"])
    certain = tried.get_by_role("row", name="effusion").get_by_role("cell")
    await expect(certain).to_have_text(["0", "0", "4", "113", "97\u00a0%", "0.00", "–"])
    await tried.locator("summary").click()
    over_time = tried.get_by_role("table", name="agreement about any finding").get_by_role("row")
    assert await over_time.count() >= 6
    assert await look_at(operator, "quality-shadow", scheme) == []
    table = tried.get_by_role("table", name="in how many studies")  # on a telephone still
    assert await table.evaluate("each => each.parentElement.scrollWidth <= each.parentElement.clientWidth")


async def test_peers_say_whose_they_are_and_the_gateway_which_processes_it_has(
    operator: Page, lively: Lively
) -> None:
    await lively.rows(
        "INSERT INTO replicas (id, host, process, does, version, revision, seen_at) VALUES"
        " (gen_random_uuid(), 'node-2', 7, 'workers', '0.0.9', 'old', now() - interval '10 minutes')"
        " RETURNING id"
    )
    await lively.rows(
        "INSERT INTO canaries (adapter, ok, since, seconds) VALUES ('milvue', true, now(), 12)"
        " ON CONFLICT (adapter) DO UPDATE SET ok = true, since = now(), seconds = 12 RETURNING adapter"
    )
    await operator.reload()
    silent = operator.locator("article", has_text="process on node-2 (workers) gives no sign of life")
    await expect(silent).to_contain_text("10 min")
    await operator.get_by_role("link", name="2, 1 silent").click()
    ours = operator.get_by_role("row", name="intake and workers")
    await expect(ours.locator(".state")).to_have_text("well")
    gone = operator.get_by_role("row", name="node-2")
    await expect(gone.locator(".state")).to_have_text("silent")
    await expect(gone).to_contain_text("another than here")
    archive = operator.locator("[id='archives.vna']")
    await expect(archive).to_contain_text("owned by archive-team@hospital")
    await expect(archive).to_contain_text("at most 600/min")
    runbook = archive.get_by_role("link", name="Runbook")
    await expect(runbook).to_have_attribute("href", "https://wiki.hospital/it?page=vna#away")
    await expect(operator.locator("[id='adapters.milvue']")).to_contain_text("test study came back")
    await lively.rows("DELETE FROM replicas WHERE host = 'node-2' RETURNING id")


async def test_the_audit_is_read_by_person_act_job_and_time(operator: Page, lively: Lively) -> None:
    job = lively.jobs["failed"]
    rows = operator.locator("table.audit tbody tr")
    await operator.goto(f"{lively.url}/audit?job={job[:8]}")
    asked = rows.filter(has_text="job asked for")
    await expect(asked).to_have_count(1)
    await expect(asked.get_by_role("link", name=job[:8])).to_have_attribute("href", f"/jobs/{job}")
    await asked.get_by_role("link", name="job asked for").click()
    await expect(rows).to_have_count(1)
    await operator.get_by_label("Since").fill("2999-01-01")
    await operator.get_by_label("Since").press("Enter")
    await expect(operator.get_by_text("Nothing that matches stands here")).to_be_visible()
    await operator.get_by_role("link", name="since 2999-01-01").click()
    await expect(rows).to_have_count(1)
    await operator.get_by_role("link", name=f"job {job[:8]}").click()
    assert await rows.count() >= len(lively.jobs)
    for wrong in ("job=nobody", "since=yesterday", "before=-1", f"job={uuid.uuid4()}"):
        answer = await operator.goto(f"{lively.url}/audit?{wrong}")
        assert answer is not None and answer.status in (200, 422), wrong
        assert await rows.count() == 0


async def test_the_audit_is_turned_page_by_page(operator: Page, lively: Lively) -> None:
    await lively.rows(
        "INSERT INTO audit (who, what) SELECT 'crowd', 'came ' || n FROM generate_series(1, 150) n"
        " RETURNING id"
    )
    await operator.goto(f"{lively.url}/audit?who=crowd")
    shown = await operator.locator("td.done-what").all_inner_texts()
    await operator.get_by_role("link", name="The next 100").click()
    await expect(operator.get_by_role("link", name="The newest")).to_be_visible()
    shown += await operator.locator("td.done-what").all_inner_texts()
    assert shown == [f"came {number}" for number in range(150, 0, -1)]


async def test_the_configuration_tells_what_is_in_force_and_what_changed(
    operator: Page, lively: Lively
) -> None:
    await operator.goto(f"{lively.url}/configuration")
    refused = operator.locator("section", has_text="What is written now was refused")
    await expect(refused).to_contain_text("no application or adapter candidate")
    in_force = operator.get_by_role("region", name="The configuration in force")
    await expect(in_force).to_contain_text("contact: the-desk@hospital")
    await expect(in_force).to_contain_text("password: '***'")
    changed = operator.locator("li", has=operator.get_by_text("in force", exact=True))
    await changed.locator("summary").click()
    await expect(changed.locator("ins")).to_contain_text("+")
    await expect(changed.locator("ins")).to_contain_text("contact: the-desk@hospital")
    await expect(changed.locator("del")).to_contain_text("contact: radiology-it@hospital")
    await expect(changed.locator("summary")).to_contain_text("1 line put in, 1 taken away")
    shown = await operator.content()
    for secret in (ARCHIVE_PASSWORD, lively.house.milvue.token):
        assert secret not in shown


async def test_everything_goes_without_scripts(plain: Page, lively: Lively) -> None:
    await plain.get_by_role("searchbox").fill(lively.patients["held"].accession)
    await plain.get_by_role("button", name="Find").click()
    await plain.goto(f"{lively.url}/jobs/{lively.jobs['held']}")
    await plain.get_by_role("radio").first.check()
    await plain.get_by_role("button", name="Go on with this study").click()
    await expect(plain.get_by_role("status").filter(has_text="Resumed")).to_be_visible()
    await lively.house.settled(lively.jobs["held"], "done")
    await plain.goto(f"{lively.url}/jobs/{lively.jobs['done']}")
    await plain.get_by_role("link", name="Show the picture").click()
    await expect(plain.locator(".picture polyline")).to_be_visible()
    await expect(plain.locator(".picture image")).to_be_visible()
    await plain.goto(f"{lively.url}/jobs/{lively.jobs['failed']}")
    await plain.get_by_role("link", name="Begin again").click()
    await plain.get_by_role("button", name="Retry 1 job").click()
    await expect(plain.get_by_role("status").filter(has_text="Retried")).to_be_visible()
