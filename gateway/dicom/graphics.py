"""The figures that annotations are made of, in pixels or in millimetres, as the shapes of findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

Shape = Literal["box", "polygon", "polyline", "point", "none"]
Point = tuple[float, ...]
Figure = tuple[Shape, tuple[Point, ...]]

_CORNERS: Final = 24  # of what is round
_CLOSED: Final = frozenset(("POLYGON", "RECTANGLE"))
_MOST_NUMBERS: Final = 300_000  # of one figure


def figures(kind: str, numbers: object, dimensions: int = 2) -> Iterator[Figure]:
    """Each point of several is a figure of its own; nothing where the numbers aren't those of such a one."""
    points = points_of(numbers, dimensions)
    match kind:
        case "POINT" | "MULTIPOINT":
            yield from (("point", (each,)) for each in points)
        case "CIRCLE" if len(points) == 2 and dimensions == 2:
            yield "polygon", _circle(*points)
        case "ELLIPSE" if len(points) == 4:
            yield "polygon", _ellipse(points)
        case _ if kind in _CLOSED and len(points) > 2:
            yield "polygon", points[:-1] if points[0] == points[-1] else points
        case "POLYLINE" | "INTERPOLATED" if len(points) > 3 and points[0] == points[-1]:
            yield "polygon", points[:-1]
        case "POLYLINE" | "INTERPOLATED" if len(points) > 1:
            yield "polyline", points


def points_of(numbers: object, dimensions: int = 2) -> tuple[Point, ...]:
    try:
        given: Sequence[float] = numbers[:_MOST_NUMBERS]  # type: ignore[index]
        values = [float(number) for number in given]
    except (TypeError, ValueError):
        return ()
    if len(values) % dimensions or not all(map(math.isfinite, values)):
        return ()
    return tuple(zip(*(values[each::dimensions] for each in range(dimensions)), strict=True))


def _circle(middle: Point, edge: Point) -> tuple[Point, ...]:
    (x, y), radius = middle, math.dist(middle, edge)
    return tuple((x + radius * across, y + radius * down) for across, down in _round())


def _ellipse(ends: Sequence[Point]) -> tuple[Point, ...]:
    """By the ends of both axes, however they lie."""
    left, right, top, bottom = ends
    middle = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
    first = [(b - a) / 2 for a, b in zip(left, right, strict=True)]
    second = [(b - a) / 2 for a, b in zip(top, bottom, strict=True)]
    return tuple(
        tuple(m + across * a + down * b for m, a, b in zip(middle, first, second, strict=True))
        for across, down in _round()
    )


def _round() -> Iterator[tuple[float, float]]:
    for number in range(_CORNERS):
        angle = 2 * math.pi * number / _CORNERS
        yield math.cos(angle), math.sin(angle)
