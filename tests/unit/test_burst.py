"""However many addresses guess, what is told of them is short, adds up, and says where they are."""

from __future__ import annotations

import json
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.intake import burst
from gateway.intake.burst import Burst


@settings(max_examples=30)
@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=200))
def test_all_tries_are_told_however_few_addresses_are(addresses: list[str]) -> None:
    guessed = Burst()
    for address in addresses:
        guessed.add(address)
    told = guessed.told()
    assert told["tries"] == len(addresses)
    assert told["different"]["addresses"] == len(set(addresses))
    for each in ("addresses", "networks"):
        assert sum(told[each].values()) == len(addresses)
        assert len(told[each]) <= 11
    assert datetime.fromisoformat(told["first"]) <= datetime.fromisoformat(told["last"])


def test_where_they_are_is_told_though_none_came_twice() -> None:
    guessed = Burst()
    for number in range(250):
        guessed.add(f"10.1.2.{number}")
        guessed.add(f"2001:db8:0:7::{number:x}")
    guessed.add("unknown")
    told = guessed.told()
    assert told["networks"] == {"10.1.2.0/24": 250, "2001:db8:0:7::/64": 250, "unknown": 1}
    assert told["different"] == {"addresses": 501, "networks": 3}


def test_no_more_is_kept_than_is_worth_it() -> None:
    guessed = Burst()
    for number in range(2 * burst._REMEMBERED):  # noqa: SLF001
        guessed.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for _ in range(50):
        guessed.add("10.0.0.1")
    told = guessed.told()
    assert told["different"]["addresses"] == "5000 or more"
    assert told["addresses"]["10.0.0.1"] == 51
    assert sum(told["addresses"].values()) == told["tries"]
    assert len(json.dumps(told)) < 1000
