"""A finding's points as the lines that a report names and a picture shows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from gateway.contract import Finding

Point = tuple[float, float]

_UNITS: Final = {
    "°": ("deg", "degree"),
    "deg": ("deg", "degree"),
    "mm": ("mm", "millimeter"),
    "cm": ("cm", "centimeter"),
    "mm2": ("mm2", "square millimeter"),
    "mm²": ("mm2", "square millimeter"),
    "cm2": ("cm2", "square centimeter"),
    "cm²": ("cm2", "square centimeter"),
    "%": ("%", "percent"),
}
_MEASURE = re.compile(r"\s*([+-]?\d{1,12}(?:[.,]\d{1,6})?)\s*(\S{1,3})\s*")


def outline(finding: Finding, width: float, height: float) -> list[Point]:
    """Its line, closed where it has an inside; one point for a point; nothing where it has no place."""
    points = [(_within(x, width), _within(y, height)) for x, y in finding.points if _real(x) and _real(y)]
    if len(points) < len(finding.points):
        return []
    match finding.shape:
        case "box" if len(points) == 2:
            (left, upper), (right, lower) = points
            return [(left, upper), (right, upper), (right, lower), (left, lower), (left, upper)]
        case "polygon" if len(points) > 2:
            return points if points[0] == points[-1] else [*points, points[0]]
        case "polyline" if len(points) > 1:
            return points
        case "point" if points:
            return points[:1]
        case _:
            return []


def quantity(measure: str | None) -> tuple[float, str, str] | None:
    """A measure as a number and its unit (code and meaning), where it is one."""
    found = _MEASURE.fullmatch(measure or "")
    if found is None or found[2] not in _UNITS:
        return None
    return float(found[1].replace(",", ".")), *_UNITS[found[2]]


def words(finding: Finding) -> str:
    """What is written beside it."""
    score = f"{finding.score:.2f}" if finding.score is not None and _real(finding.score) else ""
    return " ".join(f"{finding.label} {finding.measure or ''} {score}".split())


def finding_of(stored: Mapping[str, object]) -> Finding:
    points = stored["points"]
    assert isinstance(points, list)
    return Finding(**{**stored, "points": tuple((x, y) for x, y in points)})  # type: ignore[arg-type]


def _real(number: float) -> bool:
    return math.isfinite(number)


def _within(value: float, limit: float) -> float:
    return min(max(float(value), 0.0), limit) if limit else float(value)
