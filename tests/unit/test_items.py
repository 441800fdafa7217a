"""DICOM JSON is read as json reads it, and what no answer holds isn't read at all."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dicom.items import ItemReader, NoItems, read_items

TAGS = ("00080018", "0020000D", "00100010")
VALUES = st.one_of(st.text(max_size=20), st.integers(-(2**40), 2**40), st.none())
ITEMS = st.dictionaries(
    st.sampled_from(TAGS), st.fixed_dictionaries({"vr": st.just("UI"), "Value": st.lists(VALUES, max_size=3)})
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.lists(ITEMS, max_size=5), st.sampled_from([None, 1]), st.sampled_from([(), TAGS[:1], None]))
def test_what_is_written_is_read(items: list[dict[str, Any]], indent: int | None, keep: Any) -> None:
    body = json.dumps(items, indent=indent, ensure_ascii=indent is None).encode()
    assert read_items(body, keep) == [
        {tag: value for tag, value in item.items() if keep is None or tag in keep} for item in items
    ]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ITEMS, max_size=5), st.lists(st.integers(0, 400), max_size=6))
def test_however_it_comes_in_pieces(items: list[dict[str, Any]], cuts: list[int]) -> None:
    body = json.dumps(items, ensure_ascii=False).encode()
    reader, begin = ItemReader(), 0
    for end in (*sorted(cuts), len(body)):
        reader.feed(body[begin:end])
        begin = max(begin, end)
    assert reader.finish() == items


def test_of_an_answer_that_comes_no_more_is_kept_than_is_wanted() -> None:
    item = json.dumps({"00080018": {"Value": ["1.2"]}, "00104000": {"Value": ["x" * 10_000]}}).encode()
    reader = ItemReader({"00080018"})
    tracemalloc.start()
    try:
        reader.feed(b"[")
        for _ in range(3000):
            reader.feed(item + b",")
        reader.feed(item + b"]")
        assert len(reader.finish()) == 3001
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()


def test_a_large_item_that_trickles_in_is_looked_at_now_and_then() -> None:
    item = {"00104000": {"vr": "LT", "Value": ["x" * 4_000_000]}}
    body = json.dumps([item]).encode()
    reader = ItemReader()
    for at in range(0, len(body), 100):
        reader.feed(body[at : at + 100])
    assert reader.finish() == [item]


def test_one_dataset_is_an_answer_and_so_is_nothing() -> None:
    assert read_items(b' {"a": 1} ') == [{"a": 1}]
    assert read_items(b"") == read_items(b" \n") == read_items(b"[]") == read_items(b"[ ]\n") == []


def test_long_items_are_read() -> None:
    item = {"00080018": {"vr": "UI", "Value": ["x" * 300_000]}}
    assert read_items(json.dumps([item, item]).encode()) == [item, item]


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"null",
        b"[{}, []]",
        b"[{}",
        b"[{},",
        b"[{}] x",
        b"{} {}",
        b'[{"a": }]',
        b'[{"a": "' + b"x" * 20_000,
        b"\xff\xfe",
        b"<html>",
        b"[" * 100_000,
        b'[{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 30 + b"]" * 30 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_not(body: bytes) -> None:
    with pytest.raises(NoItems):
        read_items(body)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"00080018": {"Value": [' + b"{}," * (10 * 2**20) + b"{}]}}]",
        b"[" + b"{}," * (10 * 2**20) + b"{}]",
        b'[{"other": [' + b"1," * 2**20 + b"1]}]",
    ],
    ids=["values", "items", "what nobody asked for"],
)
def test_what_takes_gigabytes_in_memory_is_not_read(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NoItems):
            read_items(body, {"00080018"})
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()
