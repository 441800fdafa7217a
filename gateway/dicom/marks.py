"""What is marked in space, found again in the images that it lies in; what isn't is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.contract import Finding
from gateway.dicom.geometry import Plane, Vector
from gateway.dicom.graphics import Shape

_EXACT: Final = 3  # decimals of a millimetre; what is nearer by less is as near
_ELSEWHERE: Final = "mark(s) in a frame of reference that no image of the study has aren't drawn"
_BESIDE: Final = "mark(s) that lie in no image of the study aren't drawn"


@dataclass(frozen=True, slots=True)
class Mark:
    """In millimetres of a frame of reference. `named`: images that it was seen in by its own words."""

    label: str
    shape: Shape
    points: tuple[Vector, ...]
    space: str
    named: frozenset[str] = frozenset()
    measure: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What an object points at, and in sentences what of it can't be drawn."""

    findings: tuple[Finding, ...] = ()
    marks: tuple[Mark, ...] = ()
    remarks: tuple[str, ...] = ()


def place(marks: Iterable[Mark], planes: Sequence[Plane]) -> Seen:
    """Each in the one image that it lies in, or nearest to, of which it says itself before others."""
    by_space: dict[str, list[Plane]] = {}
    for plane in planes:
        by_space.setdefault(plane.frame_of_reference, []).append(plane)
    findings, missed = [], Counter[str]()
    for mark in marks:
        inside = [plane for plane in by_space.get(mark.space, ()) if _lies_in(mark, plane)]
        if not inside:
            missed[_BESIDE if mark.space in by_space else _ELSEWHERE] += 1
            findings.append(Finding(mark.label, "none", measure=mark.measure))
            continue
        best = min(inside, key=lambda plane: _rank(mark, plane))
        points = tuple(best.pixel(point) for point in mark.points)
        findings.append(
            Finding(
                mark.label,
                mark.shape,
                points,
                best.sop_instance_uid,
                measure=mark.measure,
                frame=best.frame,
            )
        )
    return Seen(tuple(findings), remarks=tuple(f"{count} {why}" for why, count in missed.items()))


def _lies_in(mark: Mark, plane: Plane) -> bool:
    return all(plane.distance(point) <= plane.half for point in mark.points) and any(
        plane.holds(plane.pixel(point)) for point in mark.points
    )


def _rank(mark: Mark, plane: Plane) -> tuple[bool, float, int, str, int]:
    """The finest image of a slide comes first."""
    away = round(max(plane.distance(point) for point in mark.points), _EXACT)
    named = plane.sop_instance_uid in mark.named
    return not named, away, -plane.columns, plane.sop_instance_uid, plane.frame or 0
