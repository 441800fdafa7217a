"""Signing in at the console, by token and by OpenID Connect, and what a session may and may not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import aiohttp
import psycopg
import pytest
import pytest_asyncio
from oidc_provider_mock import User, run_server_in_thread
from yarl import URL

from tests.conftest import made_database
from tests.daemon.test_check import checked
from tests.daemon.test_commands import gateway
from tests.peers.gateway import PATIENCE, TOKENS, TRAUMA, Hospital, hospital
from tests.peers.ports import free_port

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the mock's own libraries
]

PEOPLE = (
    User(sub="ito", claims={"preferred_username": "Dr Ito", "groups": ["radiology", "staff"]}),
    User(sub="ada", claims={"preferred_username": "Ada", "groups": ["imaging-it"]}),
    User(sub="imp", claims={"preferred_username": "operator", "groups": ["radiology"]}),
    User(sub="eve", claims={"preferred_username": "Eve", "groups": ["kitchen"]}),
)
ROLES = {"claim": "groups", "viewer": ["radiology"], "operator": ["imaging-it"]}


@pytest.fixture(scope="module")
def records(postgres: str) -> Iterator[str]:
    """The gateway's database, to be looked into."""
    with made_database(postgres, "TEMPLATE template") as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, records: str) -> AsyncIterator[Hospital]:
    folder: Path = tmp_path_factory.mktemp("house")
    port = free_port()
    with run_server_in_thread(user_claims=PEOPLE, require_nonce=True) as service:
        async with hospital(folder, records) as opened:
            opened.configuration["listen"] |= {"port": port, "proxies": ["127.0.0.1/32"]}
            opened.configuration["public_url"] = f"http://127.0.0.1:{port}"
            opened.configuration["console"] = {
                "oidc": {
                    "issuer": f"http://localhost:{service.server_port}",
                    "client_id": "gateway",
                    "client_secret": "secret-of-the-console",
                    "roles": ROLES,
                }
            }
            opened.secrets.add("secret-of-the-console")
            await opened.start()
            yield opened


@dataclass
class Browser:
    """Keeps cookies and follows nothing by itself."""

    house: Hospital
    http: aiohttp.ClientSession
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, str, Any]:
        url = path if "://" in path else self.house.gateway.url + path
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        headers |= more.pop("headers", {})
        async with self.http.request(
            method, URL(url, encoded=True), headers=headers, allow_redirects=False, **more
        ) as answer:
            if "://" not in path:
                for name, morsel in answer.cookies.items():
                    self.cookies.pop(name, None)
                    if morsel.value and morsel["max-age"] != "0":
                        self.cookies[name] = morsel.value
            return answer.status, await answer.text(), answer.headers

    async def sign_in(self, token: str) -> tuple[int, str, Any]:
        _, page, _ = await self.ask("GET", "/sign-in")
        return await self.ask("POST", "/sign-in", data={"csrf": csrf_in(page), "token": token})

    async def go_to_service(self) -> str:
        status, _, headers = await self.ask("GET", "/sign-in/oidc")
        assert status == 303
        return str(headers["Location"])

    async def come_back(self, person: str) -> str:
        """The address that the service sends the browser back to."""
        place = await self.go_to_service()
        _, _, headers = await self.ask("POST", place, data={"sub": person})
        return str(headers["Location"]).removeprefix(self.house.gateway.url)


@pytest_asyncio.fixture(loop_scope="module")
async def browser(house: Hospital) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Browser(house, http)


def csrf_in(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


async def audit(house: Hospital) -> list[tuple[str, str, dict[str, Any]]]:
    async with await psycopg.AsyncConnection.connect(house.configuration["database_url"]) as connection:
        rows = await connection.execute("SELECT who, what, detail FROM audit ORDER BY id")
        return [(who, what, detail) async for who, what, detail in rows]


async def test_strangers_are_shown_the_door(browser: Browser) -> None:
    status, _, headers = await browser.ask("GET", "/")
    assert (status, headers["Location"]) == (303, "/sign-in")
    status, page, headers = await browser.ask("GET", "/sign-in")
    assert status == 200 and "hospital account" in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in headers
    assert not re.search(r"<script|<style| style=| on\w+=", page)
    assert (await browser.ask("GET", "/api/v1/jobs"))[0] == 401


@pytest.mark.parametrize("how", ["token", "service"])
async def test_who_comes_by_a_link_is_led_there_after_signing_in(browser: Browser, how: str) -> None:
    """Also when the first token was wrong; and nowhere else, whatever an address says."""
    wanted = f"/jobs?application={TRAUMA}&state=held"

    async def enter() -> str:
        if how == "service":
            return str((await browser.ask("GET", await browser.come_back("ito")))[2]["Location"])
        return str((await browser.sign_in(TOKENS["viewer"]))[2]["Location"])

    status, _, headers = await browser.ask("GET", wanted)
    assert (status, headers["Location"]) == (303, "/sign-in")
    assert (await browser.sign_in("a guess"))[0] == 401
    assert await enter() == wanted
    for evil in ("/sign-in?next=//evil.example", "//evil.example/", "/%5Cevil.example", "/jobs/../..//evil"):
        browser.cookies.clear()
        await browser.ask("GET", evil)
        assert await enter() == "/", evil


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_token_opens_the_console_and_what_it_may_of_the_api(
    house: Hospital, browser: Browser, role: str
) -> None:
    status, _, headers = await browser.sign_in(TOKENS[role])
    assert (status, headers["Location"]) == (303, "/")
    sealed = headers["Set-Cookie"]
    assert "HttpOnly" in sealed and "SameSite=Lax" in sealed and TOKENS[role] not in sealed
    _, page, _ = await browser.ask("GET", "/")
    assert f'<span class="badge">{role}</span>' in page
    status, text, _ = await browser.ask("GET", "/api/v1/jobs")
    assert status == 200, text
    wanted = {"application": "milvue-trauma", "accession_number": "NONE-1"}
    token = {"X-CSRF-Token": csrf_in(page)}
    status, text, _ = await browser.ask("POST", "/api/v1/jobs", json=wanted, headers=token)
    assert status == (202 if role == "operator" else 403), text
    job = uuid4()
    for path in ("/audit", "/configuration", f"/jobs/{job}/raw", "/jobs/act"):
        status, text, _ = await browser.ask("GET", path)
        assert (status == 403) is (role == "viewer"), (path, status)
    if role == "viewer":
        acts = "jobs/act", f"jobs/{job}/choose", "peers/pause", "peers/unpause", "peers/look"
        for act in acts:
            status, text, _ = await browser.ask("POST", f"/{act}", data={"csrf": csrf_in(page)})
            assert status == 403 and "operator" in text, act


async def test_another_sites_page_does_nothing_in_our_name(house: Hospital, browser: Browser) -> None:
    await browser.sign_in(TOKENS["operator"])
    _, page, _ = await browser.ask("GET", "/")
    good = csrf_in(page)
    wanted = {"application": "milvue-trauma", "accession_number": "NONE-2"}
    for headers in (
        {},
        {"X-CSRF-Token": "guessed"},
        {"X-CSRF-Token": good, "Origin": "https://evil.example"},
        {"X-CSRF-Token": good, "Sec-Fetch-Site": "cross-site"},
    ):
        status, text, _ = await browser.ask("POST", "/api/v1/jobs", json=wanted, headers=headers)
        assert status == 403, (headers, text)
    for form in ({}, {"csrf": "guessed"}):
        assert (await browser.ask("POST", "/sign-out", data=form))[0] == 403
    status, _, _ = await browser.ask("POST", "/sign-out", data={"csrf": good}, headers={"Origin": "null"})
    assert status == 403
    assert (await browser.ask("GET", "/"))[0] == 200
    stranger = Browser(house, browser.http)
    assert (await stranger.ask("POST", "/sign-in", data={"token": TOKENS["admin"]}))[0] == 403


FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (f"{FORM}; charset=zork", b"csrf=x", 403),
        (f"{FORM}; charset=utf-16", b"csrf=x", 403),
        (FORM, b"csrf=%ff%00%ed%a0%80&csrf", 403),
        (FORM, b"csrf=\xff", 400),
        (FORM, b"&".join([b"a=b"] * 50), 400),
        (FORM, b"a" * 2**20, 413),
        (PARTS, PART + b"\r\nx\r\n--b--\r\n", 415),
        (PARTS, PART + b"Content-Transfer-Encoding: zork\r\n\r\nx\r\n--b--\r\n", 415),
        (PARTS, b"--c", 415),
        ("multipart/form-data", b"x", 415),
        ("", b"csrf=x", 415),
    ],
)
@pytest.mark.parametrize("page", ["/sign-in", "/sign-out"])
async def test_a_form_that_is_none_of_ours_is_refused(
    browser: Browser, page: str, kind: str, body: bytes, status: int
) -> None:
    await browser.sign_in(TOKENS["viewer"])
    answered, told, _ = await browser.ask("POST", page, data=body, headers={"Content-Type": kind})
    assert answered == status, told


@pytest.mark.parametrize(
    ("announced", "rest"),
    [("Content-Length: 100", b""), ("Transfer-Encoding: chunked", b"zz\r\n"), ("Content-Length: 100", b"a")],
)
@pytest.mark.parametrize("path", ["/sign-in", f"/ia/{TRAUMA}"])
async def test_a_body_that_breaks_off_is_not_our_fault(
    house: Hospital, path: str, announced: str, rest: bytes
) -> None:
    kind = "application/json" if path.startswith("/ia") else FORM
    where = urlsplit(house.gateway.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{announced}\r\n\r\n".encode())
    await asyncio.sleep(0.3)
    writer.write(rest)
    writer.write_eof()
    told = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    assert told == b"" or told.split()[1] == b"400"
    await asyncio.sleep(0.3)
    assert [event for event in house.gateway.events() if event["event"].startswith("a request broke")] == []


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//[x]", "null", "", "http://h:99999"])
async def test_an_origin_that_is_no_address_is_another_site(browser: Browser, origin: str) -> None:
    _, page, _ = await browser.ask("GET", "/sign-in")
    form = {"csrf": csrf_in(page), "token": TOKENS["viewer"]}
    status, told, _ = await browser.ask("POST", "/sign-in", data=form, headers={"Origin": origin})
    assert status == 403 and "another site" in told.lower()


async def test_what_pages_refer_to_is_found_by_its_name_only(browser: Browser) -> None:
    _, page, _ = await browser.ask("GET", "/sign-in")
    for name, kind in re.findall(r'href="(/static/[^"]+\.(\w+))"', page):
        status, text, headers = await browser.ask("GET", name)
        assert status == 200 and text and kind in headers["Content-Type"]
    for strange in ("x" * 3000, "%2fetc%2fpasswd", "..%2fdoor.py", "", "console.css/x"):
        assert (await browser.ask("GET", f"/static/{strange}"))[0] == 404
    late = {"If-Modified-Since": f"Mon, 01 Jan {'9' * 17} 00:00:00 GMT"}
    assert (await browser.ask("GET", "/static/console.css", headers=late))[0] == 200


async def test_jobs_are_never_chosen_by_a_name_that_nobody_knows(house: Hospital, browser: Browser) -> None:
    """Left out, it would mean all jobs."""
    await browser.sign_in(TOKENS["operator"])
    patient = house.admit(slide=False)
    house.admit(slide=False, twin_of=patient)
    job = (await house.ask(accession_number=patient.accession))["id"]
    await house.settled(job, "held")
    for path in (
        *("/jobs?accession=A1", "/jobs?nonsense=1", "/jobs?cursor=zzz", "/jobs?after=zzz"),
        *("/jobs?worker=x", "/jobs?worker=1234567890"),
        *("/jobs/act?do=resume&accession=A1", "/jobs/act?do=resume&told=resume-1"),
    ):
        status, page, headers = await browser.ask("GET", path)
        assert status == 422 and "<h1>" in page and "text/html" in headers["Content-Type"], path
    assert "known: " in (await browser.ask("GET", "/jobs?accession=A1"))[1]
    status, page, _ = await browser.ask("GET", "/jobs/act?do=resume")
    assert status == 200 and "ALL" in page and "No filter is set" in page
    form = {"csrf": csrf_in(page), "do": "resume", "expect": "1"}
    for query, wrong in (
        *(("", {"filter": "accession=A1"}), ("", {"filter": "", "accession": "A1"})),
        ("?accession=A1", {"filter": ""}),
    ):
        status, page, _ = await browser.ask("POST", f"/jobs/act{query}", data={**form, **wrong})
        assert status == 422 and "accession" in page, wrong
    _, shown = await house.api("GET", f"jobs/{job}")
    assert "resumed" not in [event["what"] for event in shown["events"]]
    status, page, _ = await browser.ask("GET", "/jobs/act?do=resume&state=held")
    assert status == 200 and "ALL" not in page and "No filter is set" not in page


async def test_who_is_to_choose_a_study_sees_which_is_which(house: Hospital, browser: Browser) -> None:
    patient = house.admit(slide=False)
    twin = house.admit(slide=False, twin_of=patient)
    for instances, told in ((patient.instances, "HAND <LEFT>"), (twin.instances, "WRIST")):
        for uid in instances:
            file = house.archive.instances[uid]
            file.header.StudyDate, file.header.StudyDescription = "20260102", told
    job = (await house.ask(accession_number=patient.accession))["id"]
    await house.settled(job, "held")
    await browser.sign_in(TOKENS["operator"])
    _, page, _ = await browser.ask("GET", f"/jobs/{job}")
    modality = house.archive.instances[twin.instances[0]].header.Modality
    for told in ("HAND &lt;LEFT&gt;", "WRIST"):
        assert re.search(rf"<strong>2026-01-02[^<]*, {modality}, [^<]*{re.escape(told)}", page), page
    browser.cookies.clear()
    await browser.sign_in(TOKENS["viewer"])
    _, page, _ = await browser.ask("GET", f"/jobs/{job}")
    assert "WRIST" not in page and twin.study not in page

    code, said, _ = await gateway(*("jobs", "show", job), GATEWAY_CONFIG=str(house.folder / "gateway.yaml"))
    assert code == 0
    assert re.search(rf"perhaps {re.escape(twin.study)}  \(2026-01-02.*, {modality}, .*WRIST", said), said
    command = re.search(rf"gateway (jobs resume \S+ --study {re.escape(twin.study)})\n", said)
    assert command is not None
    code, _, complained = await gateway(
        *command[1].split(), GATEWAY_CONFIG=str(house.folder / "gateway.yaml")
    )
    assert code == 0, complained
    await house.settled(job, "done")
    assert house.bytes_arrived(patient) == [0, 0]


async def test_a_mistyped_address_leads_back(house: Hospital, browser: Browser) -> None:
    await browser.sign_in(TOKENS["operator"])
    person = {"headers": {"Accept": "text/html,*/*;q=0.8"}}
    status, page, headers = await browser.ask("GET", "/nope", **person)
    assert status == 404 and "text/html" in headers["Content-Type"] and 'href="/"' in page
    status, _, headers = await browser.ask("GET", "/nope")
    assert status == 404 and "problem+json" in headers["Content-Type"]
    job = (await house.ask(accession_number=house.admit(slide=False).accession))["id"]
    status, _, headers = await browser.ask("GET", f"/jobs/{job[:8]}")
    assert (status, headers.get("Location")) == (303, f"/jobs/{job}")
    assert (await browser.ask("GET", "/jobs/0000000000000000000"))[0] == 404


async def test_who_has_signed_in_keeps_the_search_where_nothing_is(browser: Browser) -> None:
    person = {"headers": {"Accept": "text/html,*/*;q=0.8"}}
    nowhere = ["/nope", f"/jobs/{uuid4()}", "/jobs?nonsense=1", "/sign-in/nope"]
    for signed_in in (False, True):
        for place in nowhere:
            status, page, _ = await browser.ask("GET", place, **person)
            shown = 'role="search"' in page and 'href="/peers"' in page
            assert shown is signed_in, (place, status)
        if not signed_in:
            await browser.sign_in(TOKENS["viewer"])
            nowhere.append("/audit")


async def test_several_states_are_asked_for_one_after_the_other(browser: Browser) -> None:
    await browser.sign_in(TOKENS["viewer"])
    _, page, _ = await browser.ask("GET", f"/jobs?application={TRAUMA}&state=held")
    both = f"/jobs?state=held&amp;application={TRAUMA}&amp;state=failed"
    assert f'href="{both}"' in page
    _, page, _ = await browser.ask("GET", both.replace("&amp;", "&"))
    assert page.count('aria-current="true"') == 2
    assert f'href="/jobs?state=failed&amp;application={TRAUMA}"' in page
    assert page.count('<input type="hidden" name="state"') == 2
    assert "at work in one process" in (await browser.ask("GET", "/jobs?worker=1"))[1]


_ENDED = """INSERT INTO jobs (id, department, application, adapter, origin, state, ticket, beside, canary)
VALUES (%s, 'emergency', %s, 'milvue', 'rest', %s, '{"reference": "1.2.3"}', %s, %s)"""


async def look_at_ended(
    browser: Browser, records: str, state: str, *, application: str = TRAUMA, **kind: bool
) -> str:
    """The page of a job that came to its end so."""
    job = uuid4()
    values = [job, application, state, kind.get("beside", False), kind.get("canary", False)]
    async with await psycopg.AsyncConnection.connect(records, autocommit=True) as connection:
        await connection.execute(_ENDED, values)
    if not browser.cookies:
        await browser.sign_in(TOKENS["operator"])
    status, page, _ = await browser.ask("GET", f"/jobs/{job}")
    assert status == 200
    return page


async def test_the_page_of_what_nobody_asked_for_promises_and_offers_nothing(
    browser: Browser, records: str
) -> None:
    page = await look_at_ended(browser, records, "done")
    assert "the result is where it belongs" in page
    assert "Have it analysed again" in page and "Show this study to the vendor" in page
    tried = await look_at_ended(browser, records, "done", application=f"shadow/{TRAUMA}/x", beside=True)
    canary = await look_at_ended(browser, records, "done", application="canary/milvue", canary=True)
    assert "delivered nowhere" in tried and "of nobody" in canary
    for page in (tried, canary):
        assert "where it belongs" not in page
        assert "Have it analysed again" not in page and "Show this study to the vendor" not in page


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("failed", {}, "None: it failed before anything was delivered."),
        ("cancelled", {}, "None: it was cancelled before anything was delivered."),
        ("done", {}, "None: nothing was to be delivered."),
        ("done", {"beside": True}, "None: the vendor is only tried."),
        ("failed", {"canary": True}, "None: it was about nobody."),
    ],
)
async def test_what_has_ended_waits_for_no_result(
    browser: Browser, records: str, state: str, kind: dict[str, Any], said: str
) -> None:
    page = await look_at_ended(browser, records, state, **kind)
    assert said in page and "no result so far" not in page
    assert f'matter-card {"calm" if state == "done" else state}"' in page


async def test_why_what_is_done_is_sent_again_one_by_one(browser: Browser, records: str) -> None:
    await look_at_ended(browser, records, "done")
    _, page, _ = await browser.ask("GET", "/jobs/act?do=retry&state=done")
    assert "each would be analysed and paid for again" in page and "on a job’s own page" in page


async def test_of_many_is_told_to_how_many_it_was_done_to_how_many_not_and_why(
    browser: Browser, records: str
) -> None:
    made = """INSERT INTO jobs (id, department, application, adapter, origin, state, held_in, join_key,
        study_instance_uid)
      VALUES (gen_random_uuid(), 'emergency', %s, 'milvue', 'rest', %s, %s, %s, '1.2.77')"""
    failed, held = ("failed", None), ("held", "locating")
    states = (*failed, None), (*failed, "same"), (*held, "same"), ("done", None, None)
    async with await psycopg.AsyncConnection.connect(records, autocommit=True) as connection:
        for each in states:
            await connection.execute(made, (TRAUMA, *each))
    await browser.sign_in(TOKENS["operator"])
    query = "state=failed&state=done&study=1.2.77"
    _, page, _ = await browser.ask("GET", f"/jobs/act?do=retry&{query}")
    assert "as a new job" not in page, "none of those that are done is sent again"
    assert "Retry 2 jobs?" in page and "Others match and are left as they are: 1 done." in page
    form = {"csrf": csrf_in(page), "do": "retry", "filter": query, "expect": "2"}
    status, page, _ = await browser.ask("POST", "/jobs/act", data=form)
    said = "1 job retried, 2 not: 1 another job is already at work on the same as it; 1 done."
    assert status == 200 and f"<h1>{said}</h1>" in page


async def test_who_signs_out_is_out(house: Hospital, browser: Browser) -> None:
    await browser.sign_in(TOKENS["operator"])
    _, page, _ = await browser.ask("GET", "/")
    status, _, headers = await browser.ask("POST", "/sign-out", data={"csrf": csrf_in(page)})
    assert (status, headers["Location"]) == (303, "/sign-in")
    assert (await browser.ask("GET", "/"))[0] == 303
    assert [what for _, what, _ in (await audit(house))[-2:]] == ["signed in", "signed out"]


async def test_a_wrong_token_is_refused_and_written_down(house: Hospital, browser: Browser) -> None:
    status, page, _ = await browser.sign_in("guess\x00\ud7ff")
    assert status == 401 and "isn&#39;t known" in page
    async with asyncio.timeout(PATIENCE):
        while (told := (await audit(house))[-1])[:2] != ("nobody", "wrong tokens"):
            await asyncio.sleep(0.2)
    assert told[2]["door"] == "console" and "guess" not in str(told)


async def test_a_script_may_look_with_its_token_and_do_nothing(house: Hospital, browser: Browser) -> None:
    shown = {"headers": {"Authorization": f"Bearer {TOKENS['viewer']}"}}
    status, page, _ = await browser.ask("GET", "/", **shown)
    assert status == 200 and "Sign out" in page and not browser.cookies
    assert (await browser.ask("GET", "/configuration", **shown))[0] == 403
    status, _, headers = await browser.ask("POST", "/jobs", data={"csrf": ""}, **shown)
    assert (status, headers.get("Location")) == (303, "/sign-in") or status == 405
    wrong = {"headers": {"Authorization": "Bearer nobodys"}}
    assert (await browser.ask("GET", "/", **wrong))[0] == 401
    await browser.sign_in(TOKENS["viewer"])


async def test_who_guesses_waits(house: Hospital, browser: Browser) -> None:
    """From an address of its own; the right token from elsewhere is let in meanwhile."""
    _, page, _ = await browser.ask("GET", "/sign-in")
    form = {"csrf": csrf_in(page), "token": "guess"}
    guesser = {"X-Forwarded-For": "192.0.2.66"}

    async def guess() -> int:
        return (await browser.ask("POST", "/sign-in", data=form, headers=guesser))[0]

    async with asyncio.timeout(4 * PATIENCE):
        while 429 not in await asyncio.gather(*(guess() for _ in range(10))):
            pass
    assert (await browser.sign_in(TOKENS["viewer"]))[0] == 303


@pytest.mark.parametrize(
    ("person", "name", "role"), [("ito", "Dr Ito", "viewer"), ("ada", "Ada", "operator")]
)
async def test_the_hospitals_own_sign_in(
    house: Hospital, browser: Browser, person: str, name: str, role: str
) -> None:
    back = await browser.come_back(person)
    status, _, headers = await browser.ask("GET", back)
    assert (status, headers.get("Location")) == (303, "/")
    _, page, _ = await browser.ask("GET", "/")
    assert f'<span class="name">{name}</span>' in page and f'<span class="badge">{role}</span>' in page
    assert (await browser.ask("GET", "/api/v1/jobs"))[0] == 200
    assert (await audit(house))[-1][:2] == (name, "signed in")


async def test_it_is_asked_with_all_that_protects_it(browser: Browser) -> None:
    asked = parse_qs(urlsplit(await browser.go_to_service()).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["response_type"] == ["code"]
    assert all(len(asked[name][0]) >= 32 for name in ("state", "nonce", "code_challenge"))


async def test_whose_groups_have_no_role_stays_outside(house: Hospital, browser: Browser) -> None:
    status, page, _ = await browser.ask("GET", await browser.come_back("eve"))
    assert status == 403 and "no group that has a role" in page
    assert (await browser.ask("GET", "/"))[0] == 303
    assert (await audit(house))[-1][1] == "sign-in refused"


async def test_an_answer_that_nobody_here_asked_for(house: Hospital, browser: Browser) -> None:
    """Another browser's state, one that was used, a code that was made up, a refusal of the service."""
    back = await browser.come_back("ada")
    stranger = Browser(house, browser.http)
    assert (await stranger.ask("GET", back))[0] == 403
    await stranger.go_to_service()
    assert (await stranger.ask("GET", back))[0] == 403
    assert (await browser.ask("GET", back))[0] == 303
    assert (await browser.ask("GET", back))[0] == 403
    made_up = re.sub("code=[^&]+", "code=made-up", await stranger.come_back("ada"))
    assert (await stranger.ask("GET", made_up))[0] == 403
    other = Browser(house, browser.http)
    state = parse_qs(urlsplit(await other.go_to_service()).query)["state"][0]
    status, page, _ = await other.ask("GET", f"/sign-in/oidc/return?error=access_denied&state={state}")
    assert status == 403 and "access_denied" in page


@pytest.mark.parametrize("place", ["/sign-in/oidc", "/sign-in/oidc/return?state=x"])
async def test_pictures_in_another_sites_page_are_no_guesses(
    house: Hospital, browser: Browser, place: str
) -> None:
    """Or it could lock out whoever looks at it."""
    reader = {"X-Forwarded-For": "192.0.2.77"}
    for _ in range(30):
        status, _, headers = await browser.ask("GET", place, headers={**reader, "Sec-Fetch-Dest": "image"})
        assert status == 403 and "Set-Cookie" not in headers
    refused = [detail for _, what, detail in await audit(house) if what == "sign-in refused"]
    assert "192.0.2.77" not in str(refused)
    _, page, _ = await browser.ask("GET", "/sign-in", headers=reader)
    form = {"csrf": csrf_in(page), "token": TOKENS["viewer"]}
    assert (await browser.ask("POST", "/sign-in", data=form, headers=reader))[0] == 303


async def test_an_edited_cookie_is_none(browser: Browser) -> None:
    await browser.sign_in(TOKENS["admin"])
    [(name, value)] = browser.cookies.items()
    for wrong in (value[:-4], value[:40] + "A" + value[41:], "", "x" * 4000, "{}"):
        browser.cookies = {name: wrong}
        assert (await browser.ask("GET", "/"))[0] == 303
    browser.cookies = {name.replace("visit", "entry"): value}  # sealed for another purpose
    assert (await browser.ask("GET", "/"))[0] == 303


async def test_whoever_was_taken_out_is_out(house: Hospital, browser: Browser) -> None:
    """The token and the roles are looked at with each call, across a restart."""
    by_token, by_group = browser, Browser(house, browser.http)
    await by_token.sign_in(TOKENS["viewer"])
    await by_group.ask("GET", await by_group.come_back("ada"))
    before = house.configuration["api_tokens"], house.configuration["console"]["oidc"]["roles"]
    await house.gateway.stop()
    await house.start()
    assert [(await each.ask("GET", "/"))[0] for each in (by_token, by_group)] == [200, 200]
    await house.gateway.stop()
    house.configuration["api_tokens"] = [each for each in before[0] if each["name"] != "viewer"]
    house.configuration["console"]["oidc"]["roles"] = {**ROLES, "operator": []}
    try:
        await house.start()
        assert [(await each.ask("GET", "/"))[0] for each in (by_token, by_group)] == [303, 303]
        assert (await by_token.ask("GET", "/api/v1/jobs"))[0] == 401
    finally:
        await house.gateway.stop()
        house.configuration["api_tokens"], house.configuration["console"]["oidc"]["roles"] = before
        await house.start()


async def test_gateway_check_asks_the_sign_in_service(house: Hospital, tmp_path: Path) -> None:
    oidc = house.configuration["console"]["oidc"]
    configuration = {**house.configuration, "database_url": None}
    configuration = {name: value for name, value in configuration.items() if value is not None}
    for issuer, ok in ((oidc["issuer"], True), (f"http://127.0.0.1:{free_port()}", False)):
        configuration["console"] = {"oidc": {**oidc, "issuer": issuer}}
        _, peers, _ = await checked(tmp_path, configuration)
        assert peers["console.oidc"]["ok"] is ok, peers["console.oidc"]


async def test_who_calls_himself_as_a_token_is_told_apart(house: Hospital, browser: Browser) -> None:
    await browser.ask("GET", await browser.come_back("imp"))
    _, page, _ = await browser.ask("GET", "/")
    assert '<span class="name">operator (oidc)</span>' in page
    assert (await audit(house))[-1][2]["subject"] == "imp"
