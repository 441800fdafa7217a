"""The simulated vendor of IA-API apps, called by the simulated Sectra as a real one would call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.simulate import ia_app, sectra
from gateway.simulate.firing import Fire, fire
from gateway.simulate.ia_app import IaAppState
from gateway.simulate.sectra_state import SectraState
from gateway.simulate.serve import serve

SLIDE = "slide-wsi"


@pytest.fixture
async def hospital() -> AsyncIterator[tuple[SectraState, IaAppState]]:
    state, vendor = SectraState(), IaAppState()
    runners = [(await serve(app))[0] for app in (sectra.make_app(state), ia_app.make_app(vendor))]
    yield state, vendor
    for runner in runners:
        await runner.cleanup()


async def test_it_says_queued_at_once_and_what_it_found_at_the_end(
    hospital: tuple[SectraState, IaAppState],
) -> None:
    state, vendor = hospital
    url = f"{vendor.front.url}/ia/{ia_app.OWN_NAME}"
    shot = Fire(url=url, applicationId=ia_app.OWN_NAME, slideId=SLIDE, action="create")
    answer = await fire(state, shot)
    assert (answer.status, answer.complaints) == (200, [])
    assert answer.body["displayResult"] == "analysis queued"
    await asyncio.gather(*vendor.works)

    [result] = state.list_results(ia_app.OWN_NAME, SLIDE)
    assert result["displayResult"] == f"{ia_app.MOST_AREAS} areas of {ia_app.FINAL}"
    frames = result["data"]["result"]["content"]
    assert len(frames) == ia_app.MOST_AREAS
    points = [point for each in frames for shape in each["polygons"] for point in shape["points"]]
    assert all(0 <= point["x"] <= 1 and 0 <= point["y"] <= 0.75 for point in points)


async def test_registration_is_what_sectra_takes(hospital: tuple[SectraState, IaAppState]) -> None:
    state, vendor = hospital
    url = f"{vendor.front.url}/ia/{ia_app.OWN_NAME}"
    answer = await fire(state, Fire(url=url, applicationId=ia_app.OWN_NAME, action="registration"))
    assert (answer.status, answer.complaints) == (200, [])
    assert answer.body["url"] == url
