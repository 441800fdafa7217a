from __future__ import annotations

import pytest
from sectra_client.schemas.results import Result

from gateway.contract import Finding, Finished, SlideResult
from gateway.delivery.drawings import MANY, present

IMAGE = "1.2.3"


def shown(*findings, size=(1000, 500), widths=None, summary="abnormal"):
    finished = Finished(summary, findings=findings, properties={"score": 0.9})
    result = present(finished, size, widths or {})
    # the public schema is the judge of what would be sent
    Result.model_validate(
        {
            "slideId": "s",
            "displayResult": result.display_result,
            "applicationVersion": "1",
            "displayProperties": dict(result.display_properties),
            "data": {"context": {}, "result": result.data},
        }
    )
    return result.data


def points(polygon):
    return [(point["x"], point["y"]) for point in polygon["points"]]


def test_both_axes_are_fractions_of_the_width():
    data = shown(Finding("mitosis", "box", ((100, 50), (200, 450))))
    frame, box = data["content"]
    assert points(frame["polygons"][0]) == [(0, 0), (1, 0), (1, 0.5), (0, 0.5)]
    assert points(box["polygons"][0]) == [(0.1, 0.05), (0.2, 0.05), (0.2, 0.45), (0.1, 0.45)]
    assert box["labels"][0]["label"] == "mitosis"


def test_pixels_count_in_the_image_they_were_seen_in_not_in_the_slide():
    finding = Finding("fracture", "box", ((50, 50), (100, 100)), sop_instance_uid=IMAGE)
    _, box = shown(finding, size=(16_000, 8_000), widths={IMAGE: 200})["content"]
    assert points(box["polygons"][0])[0] == (0.25, 0.25)


def test_lines_carry_their_measure_and_points_their_label():
    _, line, pin = shown(
        Finding("angle", "polyline", ((0, 0), (1000, 0)), measure="12 °"),
        Finding("cell", "point", ((500, 250),)),
    )["content"]
    assert points(line["polylines"][0]) == [(0, 0), (1, 0)]
    assert line["labels"][0]["label"] == "angle 12 °"
    assert pin["labels"] == [{"location": {"x": 0.5, "y": 0.25}, "label": "cell"}]


def test_many_become_a_gallery_the_kinds_as_tags():
    cells = [
        Finding(f"kind {n % 2}", "box", ((n, n), (n + 10, n + 20)), score=n / 100) for n in range(MANY + 1)
    ]
    gallery = shown(*cells)
    assert gallery["type"] == "patchCollection"
    content = gallery["content"]
    assert content["tags"] == ["kind 0", "kind 1"]
    assert len(content["patches"]) == MANY + 1
    assert content["patches"][3]["position"] == {"x": 0.008, "y": 0.013}
    assert content["patches"][3]["sortKeyValue"] == 0.03


def test_what_has_no_place_is_in_the_text_only():
    assert len(shown(Finding("effusion", "none"))["content"]) == 1


def test_a_vendors_own_slide_result_is_left_as_it_is():
    own = SlideResult("own", {}, {"type": "primitive", "content": []})
    assert present(Finished("s", slide=own), (10, 10), {}) == own


@pytest.mark.parametrize("box", [((0.2, 0.1), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.1))])
def test_a_box_may_be_given_by_any_two_of_its_corners(box):
    _, drawn = shown(Finding("x", "box", box), size=(1, 1))["content"]
    assert points(drawn["polygons"][0]) == [(0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2)]
