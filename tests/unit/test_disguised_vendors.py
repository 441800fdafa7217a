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
REFUSED = [
    ({"kind": "sectra-ia", "url": "http://127.0.0.1:9"}, "calls us"),
    ({"kind": "dimse", "host": "vendor", "port": 104, "ae_title": "AI"}, "stores its results with us"),
    ({**DICOMWEB, "push_token": "t"}, "stores its results with us"),
]


async def check(adapter: dict[str, Any], deidentify: object) -> None:
    application = {"display_name": "A", "adapter": "v", "archives": ["vna"], "deidentify": deidentify}
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
        Vendors(settings, sessions).check(settings)


@pytest.mark.parametrize(("adapter", "why"), REFUSED)
async def test_a_vendor_that_calls_us_or_stores_with_us_cannot_be_kept_in_the_dark(adapter, why):
    with pytest.raises(Misconfigured) as refused:
        await check(adapter, "research")
    assert "departments.d.applications.a.deidentify can't be kept" in str(refused.value)
    assert why in str(refused.value)
    await check(adapter, False)


@pytest.mark.parametrize("adapter", [MILVUE, DICOMWEB])
async def test_a_vendor_that_is_asked_can(adapter):
    await check(adapter, "research")


@pytest.mark.parametrize(
    ("adapter", "why"), [(REFUSED[0][0], "puts its results on the slide itself"), REFUSED[1]]
)
async def test_a_shadow_that_would_show_itself_or_learn_a_name_is_refused(adapter, why):
    shadow = {"display_name": "B", "adapter": "v", "deidentify": "research"}
    application = {"display_name": "A", "adapter": "first", "archives": ["vna"], "shadow": ["b"]}
    settings = Settings.model_validate(
        {
            "public_url": "https://gateway.hospital",
            "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:9"}},
            "dimse": {},
            "adapters": {"v": adapter, "first": MILVUE},
            "profiles": {"research": {}},
            "departments": {"d": {"applications": {"a": application, "b": shadow}}},
        }
    )
    async with Sessions(settings) as sessions:
        with pytest.raises(Misconfigured) as refused:
            Vendors(settings, sessions).check(settings)
    assert "departments.d.applications.a.shadow can't be b" in str(refused.value)
    assert why in str(refused.value)
