"""Where a mask's areas end, as polygons: along the edges of its pixels, around each area, without holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is loaded when the first segmentation is met
    import numpy as np
    from numpy.typing import NDArray

Point = tuple[float, float]
_MOST_EDGES = 100_000  # of one mask: what has more of them is noise, and only its extent is told
_MOST_POINTS = 400


def outlines(mask: NDArray[np.bool_]) -> list[tuple[Point, ...]]:
    """The largest first; (column, row) counted from the upper left corner."""
    import numpy as np

    padded = np.pad(mask.astype(np.int8), 1)
    down, across = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    if not (count := int(np.count_nonzero(down)) + int(np.count_nonzero(across))):
        return []
    if count > _MOST_EDGES:
        rows, columns = np.nonzero(mask)
        left, top = float(columns.min()), float(rows.min())
        right, bottom = float(columns.max() + 1), float(rows.max() + 1)
        return [((left, top), (right, top), (right, bottom), (left, bottom))]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(down)), strict=True):  # clockwise
        begin, end = (column, row), (column + 1, row)
        if down[row, column] < 0:
            begin, end = end, begin
        following.setdefault(begin, []).append(end)
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(across)), strict=True):
        begin, end = (column, row + 1), (column, row)
        if across[row, column] < 0:
            begin, end = end, begin
        following.setdefault(begin, []).append(end)
    rings = [(_area(ring), ring) for ring in _rings(following)]
    outer = sorted(((area, ring) for area, ring in rings if area > 0), key=lambda each: -each[0])
    return [_fewer(_corners(ring)) for _, ring in outer]


def _rings(following: dict[tuple[int, int], list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    while following:
        first = at = next(iter(following))
        ring = []
        while at in following:
            ring.append(at)
            ends = following[at]
            at = ends.pop()
            if not ends:
                del following[ring[-1]]
            if at == first:
                break
        yield ring


def _area(ring: list[tuple[int, int]]) -> float:
    following = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in following) / 2


def _corners(ring: list[tuple[int, int]]) -> list[Point]:
    """Without the points that lie on a line between their neighbours."""
    around = zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True)
    return [
        (float(x), float(y))
        for (x0, y0), (x, y), (x1, y1) in around
        if (x - x0) * (y1 - y) != (x1 - x) * (y - y0)
    ]


def _fewer(points: list[Point]) -> tuple[Point, ...]:
    step = -(-len(points) // _MOST_POINTS)
    return tuple(points[::step])
