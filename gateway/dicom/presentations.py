"""What a presentation state draws on its images: figures, and texts that stand alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.contract import Finding
from gateway.dicom.graphics import Point, figures, points_of

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

_NO_AREA: Final = "mark(s) in parts of a display whose area isn't told aren't drawn"
_NO_FIGURE: Final = "mark(s) whose coordinates make no figure aren't drawn"
_COMPOUND: Final = "mark(s) of a compound kind aren't drawn"


def marks_of(dataset: Dataset) -> Iterator[Finding | str]:
    everywhere = [
        image
        for series in dataset.get("ReferencedSeriesSequence") or []
        for image in series.get("ReferencedImageSequence") or []
    ]
    for annotation in dataset.get("GraphicAnnotationSequence") or []:
        images = annotation.get("ReferencedImageSequence") or everywhere
        texts = list(annotation.get("TextObjectSequence") or [])
        graphics = list(annotation.get("GraphicObjectSequence") or [])
        said = [str(text.get("UnformattedTextValue", "")).strip() for text in texts]
        own = len(said) == len(graphics)
        for number, graphic in enumerate(graphics):
            label = said[number] if own else next(iter(said), "")
            units, kind = str(graphic.get("GraphicAnnotationUnits")), str(graphic.get("GraphicType", ""))
            drawn = list(figures(kind, graphic.get("GraphicData")))
            if not drawn:
                yield _NO_FIGURE
            for shape, points in drawn:
                for placed, uid, frame in _on_each(dataset, images, points, units):
                    yield _NO_AREA if placed is None else Finding(label, shape, placed, uid, frame=frame)
        if not graphics:
            for text, words in zip(texts, said, strict=True):
                at, units = _anchor_of(text)
                for placed, uid, frame in _on_each(dataset, images, at, units):
                    yield _NO_AREA if placed is None else Finding(words, "point", placed, uid, frame=frame)
            if annotation.get("CompoundGraphicSequence"):
                yield _COMPOUND


def _anchor_of(text: Dataset) -> tuple[tuple[Point, ...], str]:
    """What it is about, or else where it stands."""
    for corner, units in (
        ("AnchorPoint", "AnchorPointAnnotationUnits"),
        ("BoundingBoxTopLeftHandCorner", "BoundingBoxAnnotationUnits"),
    ):
        if points := points_of(text.get(corner)):
            return points[:1], str(text.get(units))
    return (), ""


def _on_each(
    dataset: Dataset, images: Sequence[Dataset], points: Sequence[Point], units: str
) -> Iterator[tuple[tuple[tuple[float, float], ...] | None, str, int | None]]:
    """In pixels of each image and frame."""
    if not points:
        return
    pixels = tuple((x, y) for x, y, *_ in points)
    for image in images:
        uid, frames = str(image.ReferencedSOPInstanceUID), frames_named(image)
        if units == "MATRIX":
            yield pixels, uid, None
        elif units == "PIXEL":
            yield from ((pixels, uid, frame) for frame in frames)
        elif units == "DISPLAY":
            for frame in frames:
                area = _area_of(dataset, uid, frame)
                if area is None:
                    yield None, uid, frame
                else:
                    yield tuple(map(area.pixel, pixels)), uid, None if area.whole else frame


def frames_named(reference: Dataset) -> list[int | None]:
    """The frames that the coordinates count in; None for the image as a whole."""
    numbers = reference.get("ReferencedFrameNumber") or [None]
    return [numbers] if isinstance(numbers, int) else list(numbers)


@dataclass(frozen=True, slots=True)
class _Area:
    """What of an image fills the display, edge to edge as it is seen there: turned or mirrored, an edge that
    stands first is the greater one. `turned`: what goes across there goes down in the image."""

    columns: tuple[float, float]
    rows: tuple[float, float]
    turned: bool
    whole: bool  # it counts in a slide as a whole, not in one of its frames

    def pixel(self, shares: tuple[float, float]) -> tuple[float, float]:
        across, down = reversed(shares) if self.turned else shares
        (left, right), (top, bottom) = self.columns, self.rows
        return left + across * (right - left), top + down * (bottom - top)


def _area_of(dataset: Dataset, uid: str, frame: int | None) -> _Area | None:
    for area in dataset.get("DisplayedAreaSelectionSequence") or []:
        named = area.get("ReferencedImageSequence") or []
        if named and not any(_names(image, uid, frame) for image in named):
            continue
        first = points_of(area.get("DisplayedAreaTopLeftHandCorner"))
        last = points_of(area.get("DisplayedAreaBottomRightHandCorner"))
        if len(first) != 1 or len(last) != 1:
            return None
        columns, rows = (_edges(*pair) for pair in zip(first[0], last[0], strict=True))
        turned = int(dataset.get("ImageRotation") or 0) % 180 != 0
        return _Area(columns, rows, turned, area.get("PixelOriginInterpretation") == "VOLUME")
    return None


def _names(image: Dataset, uid: str, frame: int | None) -> bool:
    frames = frames_named(image)
    return str(image.get("ReferencedSOPInstanceUID")) == uid and (
        frame is None or frames == [None] or frame in frames
    )


def _edges(first: float, last: float) -> tuple[float, float]:
    """Of pixels that are counted from 1."""
    return (first - 1, last) if first <= last else (first, last - 1)
