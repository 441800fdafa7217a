"""Drawings on a slide, from pixels of the full-size image to Sectra's fractions of its width."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.sectra.results import Label, Point, Polygon, Polyline, Primitive, Style

Pixels = Iterable[tuple[float, float]]  # column, row


def frame(width: int, height: int, label: str = "", style: Style | None = None) -> Primitive:
    """A frame around the whole slide, labelled at the top, in the middle."""
    drawn = outline([(0, 0), (width, 0), (width, height), (0, height)], width, style=style)
    return drawn.model_copy(update={"labels": _tag([Point(x=0.5, y=0.0)], label)})


def outline(points: Pixels, width: int, label: str = "", style: Style | None = None) -> Primitive:
    """A closed shape."""
    at = to_fractions(points, width)
    return Primitive(style=style, polygons=[Polygon(points=at)], labels=_tag(at, label))


def line(points: Pixels, width: int, label: str = "", style: Style | None = None) -> Primitive:
    """An open line."""
    at = to_fractions(points, width)
    return Primitive(style=style, polylines=[Polyline(points=at)], labels=_tag(at, label))


def pin(column: float, row: float, width: int, label: str) -> Primitive:
    """A text at one place."""
    return Primitive(labels=_tag(to_fractions([(column, row)], width), label))


def to_fractions(points: Pixels, width: int) -> list[Point]:
    """Both axes are divided by the width, so that the lower edge lies at height/width."""
    return [Point(x=column / width, y=row / width) for column, row in points]


def _tag(at: list[Point], label: str) -> list[Label]:
    return [Label(location=at[0], label=label)] if at and label else []
