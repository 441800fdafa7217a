"""A vendor's findings as Sectra draws them: primitives, or a patch gallery when there are many.

Findings are in pixels of the image they were seen in; Sectra wants fractions of the image's width, on both
axes. Whichever size the image has there, these are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.contract import Finding, Finished, SlideResult
from gateway.sectra.known import known_result
from gateway.sectra.results import Patch, PatchCollection, Point, Primitive
from gateway.sectra.shapes import frame, line, outline, pin, to_fractions

NOT_DRAWN = "Not drawn"  # the property that says so
MANY = 40  # more drawings than this hide the slide
_PATCH_PIXELS = 256
_MAGNIFICATION = 20

Size = tuple[int, int]  # width, height
Box = tuple[tuple[float, float], tuple[float, float]]


def present(finished: Finished, size: Size, widths: Mapping[str, int]) -> SlideResult:
    """The vendor's own slide result, or one made of its findings. `widths`: of the images, by SOP UID."""
    if finished.slide is not None:
        return _rebuilt(finished.slide)
    placed = [finding for finding in finished.findings if finding.points]
    if len(placed) > MANY:
        data = _gallery(finished.summary, placed, size, widths)
    else:
        drawn = [_draw(finding, _width(finding, size, widths)) for finding in placed]
        primitives = [frame(*size, finished.summary), *drawn]
        data = {"type": "primitive", "content": [primitive.to_wire() for primitive in primitives]}
    return SlideResult(finished.summary, dict(finished.properties), data)


def _rebuilt(own: SlideResult) -> SlideResult:
    """As the vendor has it, of what is known."""
    given = {"displayProperties": dict(own.display_properties), "data": {"result": own.data}}
    built = known_result(given)
    return SlideResult(own.display_result, built["displayProperties"], built["data"]["result"])


def with_these_alone(drawn: Sequence[Finding], finished: Finished) -> Finished:
    """A slide shows what was seen on it; what it doesn't show is said."""
    if len(drawn) == len(finished.findings):
        return replace(finished, findings=tuple(drawn))
    left_out = f"{len(finished.findings) - len(drawn)} finding(s) in other images or at an unknown place"
    told = "; ".join(filter(None, (str(finished.properties.get(NOT_DRAWN, "")), left_out)))
    properties = {**finished.properties, NOT_DRAWN: told}
    return replace(finished, findings=tuple(drawn), properties=properties)


def _draw(finding: Finding, width: int) -> Primitive:
    label = _label(finding)
    if finding.shape in ("box", "polygon"):
        return outline(_corners(finding), width, label)
    if finding.shape == "polyline":
        return line(finding.points, width, label)
    return pin(*finding.points[0], width, label)


def _gallery(
    summary: str, findings: Sequence[Finding], size: Size, widths: Mapping[str, int]
) -> dict[str, object]:
    """The worst first: sorted by the vendor's score, one tag for each kind of finding."""
    tags = list(dict.fromkeys(finding.label or "finding" for finding in findings))
    patches = [
        Patch(
            tag=tags.index(finding.label or "finding"),
            position=_middle(finding, _width(finding, size, widths)),
            sort_key_value=finding.score or 0.0,
        )
        for finding in findings
    ]
    widest = max((_extent(finding.points) for finding in findings), default=0.0)
    content = PatchCollection(
        description=summary,
        patches=patches,
        tags=tags,
        patch_size=max(_PATCH_PIXELS, round(widest)),
        magnification=_MAGNIFICATION,
    )
    return {"type": "patchCollection", "content": {"polygons": [], "actions": [], **content.to_wire()}}


def _width(finding: Finding, size: Size, widths: Mapping[str, int]) -> int:
    return widths.get(finding.sop_instance_uid or "", size[0])


def _label(finding: Finding) -> str:
    return " ".join(filter(None, (finding.label, finding.measure)))


def _corners(finding: Finding) -> Iterable[tuple[float, float]]:
    if finding.shape != "box":
        return finding.points
    (left, top), (right, bottom) = _around(finding.points)
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _middle(finding: Finding, width: int) -> Point:
    (left, top), (right, bottom) = _around(finding.points)
    return to_fractions([((left + right) / 2, (top + bottom) / 2)], width)[0]


def _extent(points: Sequence[tuple[float, float]]) -> float:
    (left, top), (right, bottom) = _around(points)
    return max(right - left, bottom - top)


def _around(points: Sequence[tuple[float, float]]) -> Box:
    across, down = [x for x, _ in points], [y for _, y in points]
    return (min(across), min(down)), (max(across), max(down))
