"""What counts say, and how far chance may have it: a share of all, and how far two agree. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

_Z = 1.959963984540054  # 95 % lie within so many standard errors
_NOISE = 1e-14


@dataclass(frozen=True, slots=True)
class Estimate:
    """With its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether there is anything to go by: not where the few that were met leave no doubt at all."""
        return self.low < self.high


def proportion(count: int, of: int) -> Estimate | None:
    """Wilson's interval (score, without a correction for continuity), which holds for few and for rare."""
    if of == 0:
        return None
    share, square = count / of, _Z * _Z
    centre = (share + square / (2 * of)) / (1 + square / of)
    wide = _Z * sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    low = 0.0 if count == 0 else centre - wide
    return Estimate(share, low, 1.0 if count == of else centre + wide)


def kappa(table: Sequence[Sequence[int]]) -> Estimate | None:
    """Cohen's, of a square table: how far two agree beyond chance. The interval is by the large-sample
    variance of Fleiss, Cohen and Everitt (1969). None where both say one thing of all."""
    number = sum(map(sum, table))
    if number == 0:
        return None
    shares = [[count / number for count in row] for row in table]
    rows, columns = [sum(row) for row in shares], [sum(column) for column in zip(*shares, strict=True)]
    kinds = range(len(shares))
    agreed = sum(shares[i][i] for i in kinds)
    expected = sum(rows[i] * columns[i] for i in kinds)
    if 1 - expected < 1e-12:
        return None
    value = _settle(agreed - expected) / (1 - expected)
    on = sum(shares[i][i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in kinds)
    off = sum(shares[i][j] * (columns[i] + rows[j]) ** 2 for i in kinds for j in kinds if i != j)
    variance = on + (1 - value) ** 2 * off - (value - expected * (1 - value)) ** 2
    error = sqrt(max(0.0, _settle(variance)) / number) / (1 - expected)
    return Estimate(value, max(-1.0, value - _Z * error), min(1.0, value + _Z * error))


def _settle(value: float) -> float:
    """Nothing where nothing but what floating point left is there: else it would pass for a certainty."""
    return 0.0 if abs(value) < _NOISE else value
