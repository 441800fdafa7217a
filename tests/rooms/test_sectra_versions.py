"""Our client and the strict simulator, which knows nothing of each other's code, over all ages of servers."""

from __future__ import annotations

import aiohttp
import pytest

from gateway.contract import Permanent
from gateway.sectra.client import SectraClient
from gateway.sectra.results import NewResult
from gateway.simulate import sectra as simulated
from gateway.simulate.sectra_state import SectraState, Settings
from gateway.simulate.serve import serve

RESULT = {
    "slide_id": "slide-wsi",
    "display_result": "found",
    "application_version": "1",
    "data": {"context": {}, "result": {"type": "primitive", "content": []}},
}


@pytest.fixture
async def server(request):
    state = SectraState(settings=Settings(**getattr(request, "param", {})))
    runner, _ = await serve(simulated.make_app(state))
    yield state
    await runner.cleanup()


@pytest.fixture
async def client(server):
    async with aiohttp.ClientSession() as session:
        yield SectraClient(session, server.url, server.mint("app"), software_version="1")


@pytest.mark.parametrize(
    "server",
    [
        {},
        {"api_version": "1.5", "hooks": True, "created": 200},
        {"api_version": "1.8"},
        {"api_version": "1.9", "form_data": True},
        {"api_version": "1.11"},
    ],
    indirect=True,
)
async def test_a_server_of_any_age_is_spoken_to_in_its_version(server, client):
    info = await client.slide_info("slide-wsi", phi=True)
    assert info.study_instance_uid
    stored = await client.create_result("app", NewResult(**RESULT))
    stored.display_result = "found again"
    changed = await client.update_result("app", stored)
    assert [result.version_id for result in await client.list_results("app", "slide-wsi")] == [
        changed.version_id
    ]
    assert server.list_results("app", "slide-wsi")[0]["displayResult"] == "found again"


@pytest.mark.parametrize("server", [{"api_version": "1.5", "hooks": True}], indirect=True)
async def test_the_version_is_asked_for_once(server, client):
    for _ in range(3):
        await client.slide_info("slide-wsi")
    assert server.front.count("GET", "/v1/info$") == 1


@pytest.mark.parametrize("server", [{"api_version": "1.8"}], indirect=True)
async def test_what_a_server_is_too_old_for_is_said(client):
    with pytest.raises(Permanent, match=r"speaks IA-API 1\.8; .* needs 1\.9"):
        await client.case_images_of_slide("slide-wsi")
