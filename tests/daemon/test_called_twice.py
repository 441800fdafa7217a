"""An IA-API app that is called again, since its first call gave no answer, and then runs twice.

The apps are one on the public client for Sectra's API, and the simulator's. Whichever call is heard first is
the one that counts; the other ends as it would if its job had, and nothing of it reaches the slide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sectra_client.client

from gateway.simulate import ia_app
from gateway.simulate.front import Fault
from gateway.simulate.ia_app import IaAppState
from gateway.simulate.serve import serve
from tests.peers.gateway import Hospital, hospital
from tests.peers.ia_ward import KIDNEY, invoke, ward
from tests.peers.ports import free_port
from tests.peers.sdk_vendor import SdkVendor, Turn, sdk_vendor

pytestmark = pytest.mark.slow

SLIDE = "slide-wsi"
HASTY = {"read_timeout": "4s", "call_timeout": "4s"}
HEARD = "of several calls on the vendor one was heard first: the others' tokens have ended"
NOT_TAKEN = "what the vendor wrote first wasn't taken: the tokens of its other calls are good again"
REFUSED = "a call on the vendor whose token has ended, since another was heard first, was refused"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """The public client remembers what a server's versions are, by its url."""
    sectra_client.client._info_cache.clear()  # noqa: SLF001
    yield


async def called_twice(house: Hospital, vendor: SdkVendor) -> None:
    """The second has read the slide, so that there is no third."""
    await house.until(vendor.turns[1].has_read.is_set, "the vendor is called twice")


async def let_go(vendor: SdkVendor, number: int) -> int | str:
    vendor.turns[number].let_go.set()
    assert await asyncio.to_thread(vendor.turns[number].ended.wait, 60)
    return vendor.answers[number]


def whats(job: dict[str, Any]) -> list[str]:
    return [event["what"] for event in job["events"]]


@pytest.mark.parametrize("first", [0, 1], ids=["the-first-call-is-heard-first", "the-second-is"])
async def test_the_first_call_that_is_heard_counts_and_the_other_ends(
    tmp_path: Path, database_url: str, first: int
) -> None:
    """Both have read the slide before: that decides nothing."""
    with sdk_vendor(Turn(), Turn(reads_first=True)) as vendor:
        async with ward(tmp_path, database_url, vendor, HASTY) as house:  # type: ignore[arg-type]
            await invoke(house, SLIDE)
            await called_twice(house, vendor)
            tokens = {call["callbackInfo"]["token"] for call in vendor.calls}
            assert len(tokens) == 2
            with vendor.client(vendor.calls[0]) as client:
                assert (await asyncio.to_thread(client.get_image_metadata, SLIDE)).id == SLIDE
            assert await let_go(vendor, first) == "stored"
            job = await house.job_on(SLIDE, "done")
            [before] = house.results_on(SLIDE, KIDNEY)
            assert await let_go(vendor, 1 - first) == 401
            assert house.results_on(SLIDE, KIDNEY) == [before]
            assert before["displayResult"] == f"ANSWER of call {first + 1}"
            now = await house.settled(job["id"], "done")
            assert whats(now).count(HEARD) == 1
            assert whats(now).count(REFUSED) == 1


@pytest.mark.parametrize("first", [0, 1])
async def test_after_a_first_result_that_sectra_refused_the_other_call_counts(
    tmp_path: Path, database_url: str, first: int
) -> None:
    with sdk_vendor(Turn(), Turn(reads_first=True)) as vendor:
        async with ward(tmp_path, database_url, vendor, HASTY) as house:  # type: ignore[arg-type]
            await invoke(house, SLIDE)
            await called_twice(house, vendor)
            house.sectra.front.faults.append(Fault(method="P(OS|U)T", path="/results", status=422))
            assert await let_go(vendor, first) == 422
            house.sectra.front.faults.clear()
            assert await let_go(vendor, 1 - first) == "stored"
            job = await house.job_on(SLIDE, "done")
            [result] = house.results_on(SLIDE, KIDNEY)
            assert result["displayResult"] == f"ANSWER of call {2 - first}"
            assert NOT_TAKEN in whats(job)


async def test_it_holds_across_replicas_and_kills(tmp_path: Path, database_url: str) -> None:
    """Who called twice dies; at another replica the late first call writes, then the second tries."""
    with sdk_vendor(Turn(), Turn(reads_first=True)) as vendor:
        async with ward(tmp_path, database_url, vendor, HASTY) as house:  # type: ignore[arg-type]
            await invoke(house, SLIDE)
            await called_twice(house, vendor)
            await house.gateway.kill()
            await house.start()
            assert await let_go(vendor, 0) == "stored"
            await house.gateway.kill()
            await house.start()
            assert await let_go(vendor, 1) == 401
            await house.job_on(SLIDE, "done")
            [result] = house.results_on(SLIDE, KIDNEY)
            assert result["displayResult"] == "ANSWER of call 1"
            assert len(vendor.calls) == 2


async def test_a_cancel_ends_every_call(tmp_path: Path, database_url: str) -> None:
    with sdk_vendor(Turn(), Turn(reads_first=True)) as vendor:
        async with ward(tmp_path, database_url, vendor, HASTY) as house:  # type: ignore[arg-type]
            await invoke(house, SLIDE, cancellationToken="c-1")
            await called_twice(house, vendor)
            await invoke(house, SLIDE, "cancel", cancellationToken="c-1")
            await house.job_on(SLIDE, "cancelled")
            assert [await let_go(vendor, number) for number in (0, 1)] == [401, 401]
            assert all("ANSWER" not in each["displayResult"] for each in house.results_on(SLIDE, KIDNEY))


async def test_the_simulated_app_that_hung_changes_nothing_any_more(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        state = IaAppState()
        app = ia_app.make_app(state)
        app.middlewares.insert(0, house.gates.build())
        runner, port = await serve(app)
        try:
            own = free_port()
            house.configuration["listen"]["port"] = own
            house.configuration["public_url"] = f"http://127.0.0.1:{own}"
            house.configuration["adapters"]["nuclei"] = {
                "kind": "sectra-ia",
                "url": f"http://127.0.0.1:{port}/ia/{ia_app.OWN_NAME}",
                "sure_after": "500ms",
                "final_when": ia_app.FINAL,
                **HASTY,
            }
            applications = house.configuration["departments"]["emergency"]["applications"]
            applications[KIDNEY] = {"display_name": "Nuclei", "adapter": "nuclei", "result_within": "60s"}
            await house.start()
            hung = house.gates.close("POST", f"/ia/{ia_app.OWN_NAME}$", body="create")
            await invoke(house, SLIDE)
            await hung.wait()
            await house.job_on(SLIDE, "done")
            [before] = house.results_on(SLIDE, KIDNEY)
            hung.opened.set()
            await house.until(
                lambda: (
                    state.front.count("POST", f"/ia/{ia_app.OWN_NAME}$") == 2
                    and all(call.status for call in state.front.calls)
                ),
                "the call that hung has ended",
            )
            assert house.results_on(SLIDE, KIDNEY) == [before]
            assert ia_app.FINAL in before["displayResult"]
        finally:
            house.gates.open_all()
            await runner.cleanup()
