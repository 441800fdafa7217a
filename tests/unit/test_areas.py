"""Which part of a slide an input means: however it is written, the same part is the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.jobs.records import area_of, storable

FEW = st.sampled_from([0, 0.5, 1.0, 0.1 + 0.2])
POINT = st.fixed_dictionaries({"x": FEW, "y": FEW})
POLYGON = st.fixed_dictionaries({"points": st.lists(POINT, min_size=1, max_size=2)})
TAGS = st.lists(st.sampled_from("AB"), max_size=2, unique=True)
PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])


@st.composite
def tagged(draw: st.DrawFn) -> dict[str, Any]:
    content: dict[str, Any] = {"polygon": draw(POLYGON)}
    tags = draw(TAGS)
    if tags:
        content |= {"tags": tags, "tagIndex": draw(st.integers(0, len(tags) - 1))}
    return {"type": "taggedPolygon", "content": content}


AREAS = st.lists(POLYGON, min_size=1, max_size=3).map(
    lambda polygons: {"type": "multiArea", "content": {"polygons": polygons}}
)
INPUT = st.one_of(AREAS, tagged())


def meaning(written: dict[str, Any]) -> object:
    content = written["content"]
    polygons = content.get("polygons") or [content["polygon"]]
    outlines = sorted([(point["x"], point["y"]) for point in each["points"]] for each in polygons)
    tag = content["tags"][content["tagIndex"]] if content.get("tags") else None
    return written["type"], outlines, tag


@PATIENT
@given(INPUT, INPUT)
def test_two_inputs_share_a_result_only_if_they_mean_the_same_area(this: Any, other: Any) -> None:
    assert (area_of(this) == area_of(other)) == (meaning(this) == meaning(other))


@PATIENT
@given(INPUT, st.randoms())
def test_another_spelling_of_the_same_area_finds_the_same_result(written: Any, chance: Any) -> None:
    again = storable(json.loads(json.dumps(written)))
    if "polygons" in again["content"]:
        chance.shuffle(again["content"]["polygons"])
    again["content"] = dict(reversed(again["content"].items())) | {"youngerServersSay": 1}
    assert area_of(again) == area_of(written) != ""


def test_the_whole_slide_has_no_area() -> None:
    assert {area_of(None), area_of({"type": "wholeSlide"}), area_of({"type": "wholeSlide", "x": 1})} == {""}
