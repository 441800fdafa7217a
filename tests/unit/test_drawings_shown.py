"""What a result has drawn on its slide is drawn at the same place in the console."""

from __future__ import annotations

from gateway.console.slide import read_drawings
from gateway.sectra.results import ResultData

TRIANGLE = [{"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.2}, {"x": 0.2, "y": 0.4}]


def read(result: object) -> list[tuple[str, bool, str]]:
    drawn = read_drawings(ResultData.model_validate({"result": result}), 1000)
    return [(each.line, each.is_point, each.words) for each in drawn]


def test_outlines_are_closed_lines_stay_open_and_a_label_alone_is_a_point() -> None:
    assert read(
        {
            "type": "primitive",
            "content": [
                {"polygons": [{"points": TRIANGLE}], "labels": [{"location": TRIANGLE[0], "label": "t"}]},
                {"polylines": [{"points": TRIANGLE[:2]}]},
                {"labels": [{"location": {"x": 0.5, "y": 0.5}, "label": "cell"}]},
            ],
        }
    ) == [
        ("100.0,200.0 300.0,200.0 200.0,400.0 100.0,200.0", False, ""),
        ("", False, "t"),
        ("100.0,200.0 300.0,200.0", False, ""),
        ("", True, "cell"),
    ]


def test_patches_are_squares_around_their_middle() -> None:
    content = {
        "patches": [{"tag": 0, "position": {"x": 0.5, "y": 0.2}, "sortKeyValue": 1}],
        "tags": ["mitosis"],
        "patchSize": 100,
        "magnification": 20,
    }
    assert read({"type": "patchCollection", "content": content}) == [
        ("450.0,150.0 550.0,150.0 550.0,250.0 450.0,250.0 450.0,150.0", False, "mitosis")
    ]


def test_what_nobody_here_knows_is_not_drawn() -> None:
    assert read({"type": "hologram"}) == []
    assert read_drawings(None, 1000) == []
