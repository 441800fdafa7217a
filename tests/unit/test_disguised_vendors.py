"""Vendors that would hear of a patient by another way are refused where nobody's name may leave."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sessions import Sessions
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured
from gateway.work.vendors import Vendors

MILVUE = {"kind": "milvue", "url": "http://127.0.0.1:9", "token": "t", "commands": ["smarturgences"]}
DICOMWEB = {"kind": "dicomweb", "url": "http://127.0.0.1:9"}
IA = {"kind": "sectra-ia", "url": "http://127.0.0.1:9"}
DIMSE = {"kind": "dimse", "host": "vendor", "port": 104, "ae_title": "AI"}


async def check(adapter: dict[str, Any], deidentify: object, **given: object) -> list[str]:
    """What it finds doubtful."""
    application = {
        "display_name": "A",
        "adapter": "v",
        "archives": ["vna"],
        "deidentify": deidentify,
        **given,
    }
    settings = Settings.model_validate(
        {
            "public_url": "https://gateway.hospital",
            "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:9"}},
            "dimse": {},
            "adapters": {"v": adapter},
            "profiles": {"research": {}},
            "departments": {"d": {"applications": {"a": application}}},
        }
    )
    async with Sessions(settings) as sessions:
        vendors = Vendors(settings, sessions)
        vendors.check(settings)
        return vendors.find_doubts(settings)


async def test_a_vendor_that_may_see_who_it_is_cannot_be_kept_in_the_dark():
    with pytest.raises(Misconfigured) as refused:
        await check(IA, "research", allow_phi=True)
    assert "departments.d.applications.a.deidentify can't be kept" in str(refused.value)
    assert "may see who it is (allow_phi)" in str(refused.value)
    await check(IA, False, allow_phi=True)
    await check(IA, "research")


@pytest.mark.parametrize("adapter", [MILVUE, DICOMWEB, DIMSE, {**DICOMWEB, "push_token": "t"}])
async def test_a_vendor_that_is_asked_or_stores_with_us_can(adapter):
    await check(adapter, "research")


@pytest.mark.parametrize("given", ["multi_area", {"tagged_polygon": {"tags": ["A", "B"]}}])
async def test_areas_that_a_vendor_is_not_told_of_are_doubtful(given):
    for adapter in (MILVUE, DICOMWEB, DIMSE):
        [doubt] = await check(adapter, False, input=given)
        assert doubt.startswith(
            "departments.d.applications.a.input: of the areas that users draw and tag, the"
        )
    assert await check(IA, False, input=given) == []
    assert await check(MILVUE, False) == []
