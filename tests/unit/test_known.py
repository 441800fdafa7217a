"""What passes between Sectra and a vendor: what is known, in its very spelling, and nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sectra.known import known_context, known_input, known_quality, known_result
from gateway.sectra.wire import BadMessage

POINT = {"x": 0.5, "y": 0.25}
OUTLINES = [{"points": [POINT, POINT]}]
AROUND = {
    "id": 7,
    "versionId": "v1",
    "slideId": "slide",
    "displayResult": "42 cells",
    "displayProperties": {"Cells": 42, "Share": 0.5, "Kind": "mitosis"},
    "applicationVersion": "1.2",
    "attachments": [{"name": "a", "state": "new"}],
}
CONTEXT = {"own": {"words": [1, {"deep": None}]}}
DRAWING = {
    "style": {"strokeStyle": "#FFA500", "fillStyle": None, "size": 2},
    "polygons": OUTLINES,
    "polylines": OUTLINES,
    "labels": [{"location": POINT, "label": "here"}],
}
GALLERY = {
    "description": "cells",
    "polygons": OUTLINES,
    "patches": [{"tag": 0, "position": POINT, "sortKeyValue": 1.0}],
    "tags": ["mitosis"],
    "patchSize": 64,
    "magnification": 20.0,
    "statuses": {"allowVerify": {"value": True, "message": None}},
    "actions": [{"id": "verify", "state": 0, "name": "Verify", "tooltip": ""}],
}
WHOLE: list[dict[str, Any]] = [
    {**AROUND, "data": {"context": CONTEXT, "result": {"type": "primitive", "content": [DRAWING]}}},
    {**AROUND, "data": {"context": CONTEXT, "result": {"type": "patchCollection", "content": GALLERY}}},
]
FREE = ("displayProperties", "statuses", "context", "own", "words")
INPUT = {"type": "taggedPolygon", "content": {"polygon": OUTLINES[0], "tags": ["A"], "tagIndex": 0}}

words = st.one_of(
    st.sampled_from(["$type", "__type", "$id", "$values", "__proto__", "SlideId", "slideid", "ID", "TYPE"]),
    st.text(min_size=1, max_size=8).filter(lambda name: "$" not in name and not name.startswith("__")),
)


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(name for inner in value.values() for name in names_in(inner))}
    return {name for inner in value for name in names_in(inner)} if isinstance(value, list) else set()


def litter(value: Any, strewn: Sequence[str], dice: Random, *, own: bool = False) -> Any:
    """The same with other fields strewn in at any depth: unknown ones, and known ones in other letters."""
    if isinstance(value, list):
        return [litter(each, strewn, dice, own=own) for each in value]
    if not isinstance(value, dict):
        return value
    names = [*strewn, *(name.swapcase() for name in value)]
    if own:
        names = [name for name in names if name.startswith(("$", "__"))]
    beside = {name: dice.choice([1, "x", {"a": 1}, ["a"]]) for name in names if dice.random() < 0.5}
    kept = {name: litter(one, strewn, dice, own=own or name in FREE) for name, one in value.items()}
    fields = [*{**beside, **kept}.items()]
    dice.shuffle(fields)
    return dict(fields)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_known_passes_as_it_is(whole: dict[str, Any], strict: bool) -> None:
    assert known_result(whole, strict=strict) == whole
    for name in ("displayProperties", "attachments", "data"):
        assert known_result({**whole, name: None}, strict=strict)[name] is None


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("whole", WHOLE)
@given(strewn=st.lists(words, max_size=6), seed=st.integers())
def test_nothing_else_passes_whatever_it_is_called(
    whole: dict[str, Any], strict: bool, strewn: list[str], seed: int
) -> None:
    known = {*names_in(whole), *FREE}
    sent = litter(whole, [name for name in strewn if name not in known], Random(seed))
    assert known_result(sent, strict=strict) == whole


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(words | st.sampled_from(list(names_in(WHOLE))), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_whatever_comes_only_known_names_leave(sent: Any) -> None:
    for built in (known_result(sent), known_input(sent), known_context(sent)):
        json.dumps(built)
        assert not {name for name in names_in(built) if name.startswith(("$", "__"))}
    assert set(known_result(sent)) <= set(WHOLE[0])
    assert set(known_input(sent)) <= set(INPUT)


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"displayResult": {"$type": "System.Diagnostics.Process"}}, "displayResult"),
        ({"displayProperties": {"Zyxwvut^Anna": {"a": 1}}}, "displayProperties"),
        ({"attachments": {"name": "a"}}, "attachments"),
        ({"data": []}, "data"),
        ({"data": {"result": {"type": "Primitive", "content": []}}}, "data.result.type"),
        ({"data": {"result": {"type": "video", "content": []}}}, "data.result.type"),
        ({"data": {"result": {"type": "primitive", "content": {"polygons": []}}}}, "data.result.content"),
    ],
)
def test_what_is_of_another_shape_is_refused_without_a_word_of_it(
    changed: dict[str, Any], place: str
) -> None:
    with pytest.raises(BadMessage) as refused:
        known_result({**WHOLE[0], **changed}, strict=True)
    assert refused.value.faults[0].partition(":")[0] == place
    assert "Zyxwvut" not in str(refused.value)


def test_an_area_and_a_quality_are_known_too() -> None:
    assert known_input({**INPUT, "Type": "x", "$type": "y"}) == INPUT
    assert known_input({"type": "wholeSlide"}) == {"type": "wholeSlide"}
    quality = {"applicationVersion": "1", "qualityControl": {"status": "QualityOk", "versionId": "v"}}
    assert known_quality({**quality, "slideId": "another"}) == quality
