"""What stands on a slide: with the real store, on a Sectra that refuses in each of its ways, or is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.contract import NeedsHuman, Retryable
from gateway.delivery.slide import Author, SlideWriter, sign
from gateway.delivery.vendor_results import VendorResults
from gateway.jobs.records import Place
from gateway.jobs.store import Store
from gateway.sectra.calls import Limits
from gateway.sectra.client import SectraClient
from gateway.simulate import sectra as simulated
from gateway.simulate.sectra_state import STATE, SectraState
from gateway.simulate.serve import serve

PLACE = Place("main", "app", "slide-bare")
QUEUED = sign("analysis queued", (100, 100), {})
COME, GO = web.AppKey("COME", asyncio.Event), web.AppKey("GO", asyncio.Event)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@web.middleware
async def take_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The work is done long after whoever asked has left."""
    if request.method == "POST" and request.headers.get("X-Sectra-SoftwareVersion") == "slowly":
        await request.read()
        await asyncio.sleep(1.5)
    if request.method == "PUT" and request.headers.get("X-Sectra-SoftwareVersion") == "held up":
        request.app[COME].set()
        await request.app[GO].wait()
    return await handler(request)


@pytest.fixture
def held_up() -> tuple[asyncio.Event, asyncio.Event]:
    """A change of a result has come, and may go on."""
    return asyncio.Event(), asyncio.Event()


@pytest.fixture
async def sectra(held_up: tuple[asyncio.Event, asyncio.Event]) -> AsyncIterator[SectraState]:
    app = simulated.make_app()
    app.middlewares.append(take_time)
    app[COME], app[GO] = held_up
    runner, _ = await serve(app)
    yield app[STATE]
    await runner.cleanup()


def client_of(
    session: aiohttp.ClientSession, sectra: SectraState, version: str = "0.1", total: float = 60
) -> SectraClient:
    token, limits = sectra.mint("app"), Limits(total=total)
    return SectraClient(session, sectra.url, token, software_version=version, limits=limits)


def author() -> Author:
    return Author(uuid4(), datetime.now(UTC), 1)


def body(text: str) -> dict[str, Any]:
    data = {"context": {}, "result": {"type": "primitive", "content": []}}
    return {"slideId": PLACE.slide_id, "displayResult": text, "applicationVersion": "1", "data": data}


def texts(sectra: SectraState) -> list[str]:
    return [result["displayResult"] for result in sectra.list_results("app", PLACE.slide_id)]


@pytest.mark.parametrize("stale", [400, 409, 412, 422])
async def test_a_vendors_first_result_takes_the_place_of_the_sign_that_a_user_touched(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState, stale: Any
) -> None:
    sectra.settings.stale = stale
    client, writer, vendor = client_of(session, sectra), SlideWriter(store), author()
    await writer.show(client, PLACE, vendor, QUEUED)
    [stored] = await client.list_results("app", PLACE.slide_id)
    await client.update_result("app", stored)  # the user's: we hold an older version now
    results = VendorResults(store, writer)
    answer = await results.create(client.passage(), PLACE, vendor, body("7 mitoses"), {})
    assert (answer.status, texts(sectra)) == (201, ["7 mitoses"])
    answer = await results.create(client.passage(), PLACE, author(), body("8 mitoses"), {})
    assert (answer.status, texts(sectra)) == (201, ["8 mitoses"])


async def test_a_sign_that_nobody_remembers_is_no_vendors_result_and_gives_way_to_its_first(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState
) -> None:
    client, writer, vendor = client_of(session, sectra), SlideWriter(store), author()
    await writer.show(client, PLACE, vendor, QUEUED)
    [stored] = sectra.list_results("app", PLACE.slide_id)
    await store.forget_slide_result(PLACE)  # whoever stored it died before it was remembered
    results = VendorResults(store, writer)
    assert (await results.list(client.passage(), PLACE, {})).body == []
    assert (await results.read(client.passage(), PLACE, stored["id"], {})).status == 404
    answer = await results.create(client.passage(), PLACE, vendor, body("7 mitoses"), {})
    assert (answer.status, texts(sectra)) == (201, ["7 mitoses"])
    later = replace(vendor, rank=vendor.rank + 1)
    await writer.show(client, PLACE, later, sign("analysis: at work", (100, 100), {}))
    assert texts(sectra) == ["7 mitoses"]


@pytest.mark.parametrize("stale", [400, 409, 412, 422])
async def test_what_a_user_changed_too_late_covers_nothing(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState, stale: Any
) -> None:
    sectra.settings.stale = stale
    client, writer, ours = client_of(session, sectra), SlideWriter(store), author()
    queued = await writer.show(client, PLACE, ours, QUEUED)
    assert queued is not None
    await writer.show(client, PLACE, ours, sign("abnormal (Fracture)", (100, 100), {}))
    answered = await writer.change(client, "main", "app", queued)
    assert (answered.display_result, texts(sectra)) == ("abnormal (Fracture)", ["abnormal (Fracture)"])


async def test_a_sign_whose_answer_was_lost_is_not_stored_again(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState
) -> None:
    writer, ours = SlideWriter(store), author()
    with pytest.raises(Retryable) as caught:
        await writer.show(client_of(session, sectra, "slowly", total=0.3), PLACE, ours, QUEUED)
    assert caught.value.uncertain
    async with asyncio.timeout(60):
        await writer.show(client_of(session, sectra), PLACE, ours, QUEUED)
        while any(call.status is None for call in sectra.front.calls):
            await asyncio.sleep(0.05)
    assert texts(sectra) == ["analysis queued"]


async def test_what_an_earlier_life_left_is_retired_when_the_next_thing_is_shown(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState
) -> None:
    client, ours = client_of(session, sectra), author()
    await SlideWriter(store).show(client, PLACE, author(), sign("abnormal (Fracture)", (100, 100), {}))
    await store.forget_slide_result(PLACE)  # another database
    writer = SlideWriter(store)
    assert await store.begin_slide_result(PLACE, 15)
    await writer.put_first(client, PLACE, ours, QUEUED)
    assert texts(sectra) == ["abnormal (Fracture)", "analysis queued"]
    for _ in range(2):
        await writer.show(client, PLACE, ours, sign("normal", (100, 100), {}))
        assert texts(sectra) == ["replaced by a newer result", "normal"]
    writes = [call for call in sectra.front.calls if call.method in ("POST", "PUT")]
    assert len(writes) == 5  # it is retired once


async def test_the_right_to_be_first_goes_back_when_sectra_refuses(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState
) -> None:
    client, writer, ours = client_of(session, sectra), SlideWriter(store), author()
    sectra.kill_tokens()
    for _ in range(2):
        with pytest.raises(NeedsHuman):
            await writer.show(client, PLACE, ours, QUEUED)
        assert await store.slide_result(PLACE) is None
    assert await store.begin_slide_result(PLACE, 15)
    with pytest.raises(NeedsHuman):
        async with writer.giving_up(PLACE):
            await writer.put_first(client, PLACE, ours, QUEUED)
    assert await store.slide_result(PLACE) is None


async def test_no_news_of_a_job_takes_the_place_of_its_result_but_its_last(
    store: Store, session: aiohttp.ClientSession, sectra: SectraState
) -> None:
    client, writer, ours = client_of(session, sectra), SlideWriter(store), author()
    await writer.show(client, PLACE, ours, QUEUED)
    result = replace(ours, sign=False)
    await writer.show(client, PLACE, result, sign("abnormal (Fracture)", (100, 100), {}))
    for rank in (ours.rank, ours.rank + 1):  # told late, or of what is done with it elsewhere
        assert await writer.show(client, PLACE, replace(ours, rank=rank), QUEUED) is None
    assert texts(sectra) == ["abnormal (Fracture)"]
    ended = replace(ours, rank=ours.rank + 1, last=True)
    await writer.show(client, PLACE, ended, sign("analysis cancelled", (100, 100), {}))
    assert texts(sectra) == ["analysis cancelled"]


async def test_a_sign_on_its_way_in_another_process_does_not_cover_the_result(
    store: Store,
    session: aiohttp.ClientSession,
    sectra: SectraState,
    held_up: tuple[asyncio.Event, asyncio.Event],
) -> None:
    (come, go), ours = held_up, author()
    client = client_of(session, sectra)
    await SlideWriter(store).show(client, PLACE, ours, QUEUED)
    late = asyncio.create_task(
        SlideWriter(store).show(
            client_of(session, sectra, "held up"), PLACE, ours, sign("analysis: sending", (100, 100), {})
        )
    )
    async with asyncio.timeout(60):
        await come.wait()
        result = replace(ours, sign=False)
        await SlideWriter(store).show(client, PLACE, result, sign("abnormal (Fracture)", (100, 100), {}))
        go.set()
        assert await late is None
    assert texts(sectra) == ["abnormal (Fracture)"]
