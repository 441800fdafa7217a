"""A hospital with one special application, which a vendor's own IA-API app does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.peers.gateway import Hospital, hospital
from tests.peers.ia_vendor import IaVendor
from tests.peers.ports import free_port

KIDNEY = "kidney-ai"
FINAL = "ANSWER"


@asynccontextmanager
async def ward(
    folder: Path, database_url: str, vendor: IaVendor, adapter: Any = None, **application: Any
) -> AsyncIterator[Hospital]:
    """A hospital whose only special application is the vendor's."""
    async with hospital(folder, database_url) as house:
        port = free_port()
        house.configuration["listen"]["port"] = port
        house.configuration["public_url"] = f"http://127.0.0.1:{port}"
        house.configuration["adapters"]["kidney"] = {
            "kind": "sectra-ia",
            "url": vendor.url,
            "quiet": "30s",
            "sure_after": "500ms",
            "final_when": f"^{FINAL}",
            **(adapter or {}),
        }
        house.configuration["departments"]["emergency"]["applications"][KIDNEY] = {
            "display_name": "Kidney",
            "adapter": "kidney",
            "settle": "100ms",
            "result_within": "10m",
            "retry": {"attempts": 6, "first": "200ms", "most": "1s"},
            **application,
        }
        await house.start()
        yield house
        given = {call["callbackInfo"]["token"] for call in vendor.calls} - {"void"}
        assert not {token for token in given if token in "".join(each.log for each in house.gateways)}


async def invoke(house: Hospital, slide: str, action: str = "create", **shot: Any) -> Any:
    return await house.fire(slide, action, applicationId=KIDNEY, **shot)


def callbacks(vendor: IaVendor) -> dict[str, str]:
    found: dict[str, str] = vendor.calls[0]["callbackInfo"]
    return found


async def call(
    house: Hospital,
    vendor: IaVendor,
    path: str,
    *,
    method: str = "GET",
    token: str | None = None,
    body: object = None,
) -> tuple[int, Any]:
    """As the vendor, or whoever has stolen its token, would call."""
    there = callbacks(vendor)
    headers = {"Authorization": f"Bearer {token or there['token']}"}
    async with house.http.request(method, f"{there['url']}/{path}", json=body, headers=headers) as response:
        raw = await response.read()
        is_json = response.content_type.endswith("json")
        return response.status, json.loads(raw) if is_json and raw else raw


def told(job: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the vendor called, and with what outcome."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in job["events"]:
        if event["what"].startswith("the vendor called: "):
            found.setdefault(event["what"].removeprefix("the vendor called: "), []).append(event["detail"])
    return found
