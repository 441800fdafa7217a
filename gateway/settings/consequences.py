"""What follows from what was found: `when: [{finding: fracture, score: ">0.8", deliver: [ris]}]`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from gateway.settings.parts import Name, Part
from gateway.settings.quantities import Written

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
}
_WRITTEN = re.compile(r"\s*([^\w\s.+-]+)\s*([+-]?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Threshold(Written):
    """`>0.8`: what a score has to be."""

    operator: str
    limit: float

    @classmethod
    def parse(cls, value: str) -> Threshold:
        found = _WRITTEN.fullmatch(value)
        if found is None:
            raise ValueError('a score is written in quotes, like ">0.8" or "<= 0.5"')
        if found[1] not in _COMPARE:
            raise ValueError(f"there is no operator {found[1]}; allowed: {', '.join(_COMPARE)}")
        return cls(found[1], float(found[2]))

    def holds(self, score: float | None) -> bool:
        """Never for what has no score."""
        return score is not None and not math.isnan(score) and _COMPARE[self.operator](score, self.limit)

    def __str__(self) -> str:
        return f"{self.operator} {self.limit:g}"


class When(Part):
    """`finding`: its name, as it stands in the results, in small or capital letters. `notify`: a department,
    whose contact hears of it."""

    finding: Annotated[str, Field(min_length=1)]
    score: Threshold | None = None
    deliver: list[Name] = []
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    notify: Name | None = None

    @model_validator(mode="after")
    def _something_follows(self) -> When:
        if not self.deliver and self.priority is None and self.notify is None:
            raise ValueError("nothing follows from it: name deliver, priority or notify")
        return self

    def __str__(self) -> str:
        return self.finding if self.score is None else f"{self.finding}, score {self.score}"

    @property
    def what_follows(self) -> str:
        told = [f"also to {', '.join(self.deliver)}"] if self.deliver else []
        told += [f"at priority {self.priority} at least"] if self.priority is not None else []
        told += [f"the contact of {self.notify} is told"] if self.notify is not None else []
        return "; ".join(told)
