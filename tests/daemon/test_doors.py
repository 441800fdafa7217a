"""Who is let in where: a secret path, networks behind a proxy, what is taken, a door for vendors alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector, encode_basic_auth

from tests.peers.gateway import PATIENCE, TOKENS, TRAUMA, Hospital, hospital
from tests.peers.ia_vendor import IaVendor, ia_vendor
from tests.peers.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "only-sectra-knows-this-path"
KIDNEY = "kidney-ai"
PUSH = "the-word-of-a-vendor-that-pushes"
VERSION_HEADERS = ("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion")


@pytest.fixture(scope="module")
def vendor() -> Any:
    with ia_vendor(mode="later", pause=0.05) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, vendor: IaVendor) -> AsyncIterator[Hospital]:
    """Behind a proxy on this machine; vendors call elsewhere."""
    async with hospital(tmp_path_factory.mktemp("house")) as opened:
        port = free_port()
        opened.configuration["listen"]["proxies"] = ["127.0.0.1", "10.9.0.0/16"]
        opened.configuration["sectra"] |= {"secret_path": SECRET, "allowed_networks": ["192.0.2.0/24"]}
        opened.configuration["vendors"] = {
            "listen": {"port": port},
            "public_url": f"http://127.0.0.1:{port}",
        }
        opened.configuration["adapters"]["kidney"] = {
            "kind": "sectra-ia",
            "url": vendor.url,
            "final_when": "^ANS",
        }
        opened.configuration["adapters"]["pushing"] = {
            "kind": "dicomweb",
            "url": "http://127.0.0.1:9/dicom-web",
            "push_token": PUSH,
        }
        opened.configuration["departments"]["emergency"]["applications"][KIDNEY] = {
            "display_name": "Kidney",
            "adapter": "kidney",
            "settle": "100ms",
        }
        opened.secrets |= {SECRET, PUSH}
        await opened.start()
        yield opened


def app(house: Hospital, application: str = TRAUMA, secret: str = SECRET) -> str:
    return f"{house.gateway.url}/ia/{secret}/{application}"


def by(*addresses: str, **headers: str) -> dict[str, str]:
    return {"X-Forwarded-For": ", ".join(addresses), **headers}


async def status_of(
    house: Hospital, url: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> int:
    async with house.http.request(method, url, headers=headers or {}) as answer:
        return answer.status


async def test_who_guesses_at_any_door_is_counted_told_of_and_kept_waiting(house: Hospital) -> None:
    """Each from an address of its own, so that nobody else waits for it. A path is never closed to Sectra."""
    ours, theirs = house.gateway.url, house.configuration["vendors"]["public_url"]
    tried = {
        "api": ("GET", f"{ours}/api/v1/jobs"),
        "dicomweb": ("POST", f"{ours}/dicomweb/{TRAUMA}/studies"),
        "adapters": ("GET", f"{theirs}/adapters/kidney/info"),
        "ia": ("GET", app(house, secret="nobody-has-told-me-the-path")),
    }

    async def guess(door: str, address: str) -> set[int]:
        method, url = tried[door]
        async with ClientSession(connector=TCPConnector(local_addr=(address, 0))) as http:

            async def try_one(number: int) -> int:
                bearer = {} if door == "ia" else {"Authorization": f"Bearer guess-{number}"}
                async with http.request(method, url, headers=bearer) as answer:
                    return answer.status

            told: set[int] = set()
            async with asyncio.timeout(PATIENCE):
                while 429 not in told:  # those of the first burst may all be looked at together
                    told |= set(await asyncio.gather(*(try_one(number) for number in range(40))))
                    if door == "ia":
                        break
            return told

    told = await asyncio.gather(*(guess(door, f"127.0.7.{n}") for n, door in enumerate(tried, 1)))
    assert told == [{401, 429}, {401, 429}, {401, 429}, {404}]
    async with house.http.get(f"{ours}/metrics") as answer:
        counted = dict(
            re.findall(r'gateway_wrong_tokens_total\{door="(\w+)"\} ([\d.]+)', await answer.text())
        )
    assert {door for door in tried if float(counted[door]) >= 20} == set(tried)

    async def audited() -> set[str]:
        _, said = await house.api("GET", "audit?what=wrong+tokens")
        assert "guess-" not in str(said)
        return {each["detail"]["door"] for each in said["acts"]}

    async with asyncio.timeout(2 * PATIENCE):  # what comes amid a burst is told a minute later
        while not set(tried) <= await audited():
            await asyncio.sleep(0.2)


async def test_only_who_knows_the_secret_path_finds_the_door(house: Hospital) -> None:
    for secret in ("only-sectra-knows-this-pat", SECRET + "x", "x", "%00", "%ff", "{secret}"):
        for rest in ("", "/info"):
            assert await status_of(house, app(house, secret=secret) + rest, by("192.0.2.7")) == 404
    assert await status_of(house, f"{house.gateway.url}/ia/{TRAUMA}", by("192.0.2.7")) == 404
    assert await status_of(house, app(house), by("192.0.2.7")) == 200
    assert await status_of(house, app(house) + "/info", by("192.0.2.7")) == 200


async def test_what_goes_wrong_there_is_logged_without_the_secret(house: Hospital) -> None:
    """Each house looks into its logs at the end: here something has to stand in them."""
    patient = house.admit(1)
    await house.invoke(b"{", url=app(house), headers=by("192.0.2.7"))
    await house.invoke(house.invocation(patient.slide), url=app(house), headers=by("192.0.2.7"))
    await house.job_on(patient.slide, "done")
    assert SECRET not in house.gateway.log


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ((), 403),
        (("192.0.2.7",), 200),
        (("192.0.2.7, 10.9.0.1",), 200),
        (("192.0.2.7, 10.8.0.1",), 403),
        (("192.0.2.7, 127.0.0.1",), 200),
        (("198.51.100.1",), 403),
        (("192.0.2.7, nonsense",), 403),
    ],
)
async def test_behind_a_proxy_it_is_the_caller_who_counts(
    house: Hospital, said: tuple[str, ...], status: int
) -> None:
    assert await status_of(house, app(house), by(*said) if said else None) == status


@pytest.mark.parametrize("rest", ["", "/imagenotification"])
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON;charset=UTF-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/plain; application/json", 415),
        ("application/jsonp", 415),
    ],
)
async def test_only_json_is_taken(house: Hospital, rest: str, kind: str, status: int) -> None:
    """Any page in a browser can have it send the other kinds, without asking."""
    patient = house.admit(1)
    told, body, headers = await house.invoke(
        house.invocation(patient.slide),
        url=app(house) + rest,
        headers=by("192.0.2.7", **{"Content-Type": kind}),
    )
    assert (told, all(name in headers for name in VERSION_HEADERS)) == (status, True), body
    assert len(await house.jobs_on(patient.slide)) == (status == 200)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream"])
async def test_of_a_call_it_is_said_first_what_the_contract_says(house: Hospital, kind: str) -> None:
    """404 for an application that there isn't, 400 for what isn't JSON, whatever it is called."""
    headers = by("192.0.2.7", **{"Content-Type": kind})
    for rest in ("", "/imagenotification"):
        for url, status in ((app(house, "unheard-of"), 404), (app(house), 400)):
            async with house.http.post(url + rest, data=b"no JSON", headers=headers) as response:
                assert response.status == status
                assert all(name in response.headers for name in VERSION_HEADERS)


async def test_vendors_find_their_own_door_and_no_other(house: Hospital, vendor: IaVendor) -> None:
    patient = house.admit(1)
    body = house.invocation(patient.slide, applicationId=KIDNEY)
    body["callbackInfo"]["token"] = house.sectra.mint(KIDNEY)
    status, _, _ = await house.invoke(body, url=app(house, KIDNEY), headers=by("192.0.2.7"))
    assert status == 200
    await house.job_on(patient.slide, "done")
    assert vendor.trouble == [] and house.results_on(patient.slide, KIDNEY)
    given = vendor.calls[0]["callbackInfo"]
    theirs = house.configuration["vendors"]["public_url"]
    assert given["url"] == f"{theirs}/adapters/kidney"
    bearer = {"Authorization": f"Bearer {given['token']}"}
    assert await status_of(house, f"{theirs}/adapters/kidney/info", bearer) == 200
    assert await status_of(house, f"{house.gateway.url}/adapters/kidney/info", bearer) == 404
    assert (
        await status_of(house, f"{theirs}/adapters/kidney/info", bearer | {"Content-Encoding": "gzip"}) == 415
    )
    for path in (
        "/",
        "/healthz",
        "/metrics",
        "/api/v1/jobs",
        f"/ia/{SECRET}/{TRAUMA}",
        f"/dicomweb/{TRAUMA}/studies",
    ):
        assert await status_of(house, theirs + path, by("192.0.2.7")) == 404
        assert await status_of(house, theirs + path, by("192.0.2.7"), "POST") == 404


CONSOLE = (
    "/",
    "/jobs",
    "/jobs/{id}",
    "/jobs/{id}/raw",
    "/peers",
    "/quality",
    "/audit",
    "/configuration",
    "/api/v1/",
)


async def test_whoever_has_a_vendors_or_sectras_token_opens_no_other_door_with_it(
    house: Hospital, vendor: IaVendor
) -> None:
    vendor.mode = "never"
    patient = house.admit(1)
    body = house.invocation(patient.slide, applicationId=KIDNEY)
    body["callbackInfo"]["token"] = house.sectra.mint(KIDNEY)
    assert (await house.invoke(body, url=app(house, KIDNEY), headers=by("192.0.2.7")))[0] == 200
    job = await house.job_on(patient.slide, "analysing")
    vendor.mode = "later"
    given = vendor.calls[-1]["callbackInfo"]
    callers = (f"198.51.100.{number}" for number in count(1))  # who tries often is only slowed down

    async def tried(method: str, url: str, token: str, *, basic: bool = False, **more: Any) -> int:
        auth = encode_basic_auth("x", token) if basic else f"Bearer {token}"
        headers = by(next(callers), Authorization=auth)
        async with house.http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            return answer.status

    _, described = await house.api("GET", "openapi.json")
    ours, theirs = house.gateway.url, house.configuration["vendors"]["public_url"]
    doors = [(method, ours + path) for path, ways in described["paths"].items() for method in ways]
    doors = [(method, url) for method, url in doors if "/api/" in url]
    assert len(doors) > 15
    doors += [("get", ours + path) for path in CONSOLE]
    doors += [("post", f"{ours}/jobs/act"), ("post", f"{ours}/peers/pause")]
    doors += [("post", f"{ours}/dicomweb/{TRAUMA}/studies"), ("post", f"{theirs}/adapters/pushing/studies")]
    for token in (given["token"], house.sectra.mint(TRAUMA), PUSH):
        for method, url in doors:
            if token == PUSH and "/pushing/" in url:
                continue
            filled = re.sub(r"\{\w+\}", lambda named: job["id"] if named[0] == "{id}" else "kidney", url)
            assert await tried(method.upper(), filled, token) in (303, 401, 403), (method, url)
        assert await tried("POST", f"{ours}/dicomweb/{TRAUMA}/studies", token, basic=True) == 401
        for path in ("", "/info", "/imagenotification"):
            method = "GET" if path in ("", "/info") else "POST"
            assert await tried(method, f"{ours}/ia/{KIDNEY}{path}", token) == 404
    for token in (house.sectra.mint(KIDNEY), PUSH, TOKENS["admin"]):
        assert await tried("GET", f"{given['url']}/info", token) == 401
    assert await tried("GET", f"{given['url']}/info", given["token"]) == 200
    body = house.invocation(house.admit(1).slide)
    body["callbackInfo"]["token"] = given["token"]
    assert (await house.invoke(body, url=app(house), headers=by("192.0.2.7")))[0] == 403
    assert (await house.jobs_on(patient.slide))[0]["state"] == "analysing"


@pytest.mark.parametrize(
    "slide", ["..", "a/../b", "%2e%2e", "%252e%252e", "a%2f..%2fb", "a\\..\\b", "..;x", "x" * 1025, "ü" * 600]
)
async def test_a_slide_is_named_and_not_a_way_to_elsewhere(house: Hospital, slide: str) -> None:
    for action, rest in (("create", ""), ("newImageFiles", "/imagenotification")):
        body = house.invocation(slide, action=action)
        status, problem, _ = await house.invoke(body, url=app(house) + rest, headers=by("192.0.2.7"))
        assert (status, problem["detail"].partition(":")[0]) == (422, "slideId")


async def test_a_cancellation_token_may_be_of_any_length(house: Hospital) -> None:
    patient = house.admit(1)
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    body = house.invocation(patient.slide, cancellationToken="".join(map(chr, range(33, 126))) * 40)
    status, _, _ = await house.invoke(body, url=app(house), headers=by("192.0.2.7"))
    assert status == 200
    await hold.wait()
    cancel = {key: body[key] for key in ("applicationId", "slideId", "cancellationToken")} | {
        "action": "cancel"
    }
    assert (await house.invoke(cancel, url=app(house), headers=by("192.0.2.7")))[:2] == (200, [])
    await house.job_on(patient.slide, "cancelled")
    hold.opened.set()
    assert json.dumps(cancel["cancellationToken"])[1:-1] not in house.gateway.log
