"""How right a vendor is, by studies whose truth is known: overall, and by what the studies are of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.watch.concordance import ANY
from gateway.watch.proportions import Estimate, proportion

GROUPED_BY = ("modality", "device", "sex", "age")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Examined:
    """One study with a result. `truth`: of the findings where it is known; `of`: its modality and so on."""

    truth: Mapping[str, bool]
    found: Collection[str]
    of: Mapping[str, str] = field(default_factory=dict)

    def says(self, finding: str) -> bool:
        return bool(self.found) if finding == ANY else finding in self.found


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one finding in one group of studies: found or missed where it is, raised or left where it isn't."""

    finding: str
    group: str
    value: str
    found: int
    missed: int
    raised: int
    left: int

    @property
    def studies(self) -> int:
        return self.found + self.missed + self.raised + self.left

    @property
    def sensitivity(self) -> Estimate | None:
        return proportion(self.found, self.found + self.missed)

    @property
    def specificity(self) -> Estimate | None:
        return proportion(self.left, self.left + self.raised)


def judge(examined: Sequence[Examined], findings: Iterable[str]) -> list[Accuracy]:
    """Of each finding, first overall, then by group."""
    told = []
    for finding in findings:
        known = [each for each in examined if finding in each.truth]
        told.append(_count(finding, "", "", known))
        for group in GROUPED_BY:
            values = sorted({each.of.get(group, UNKNOWN) for each in known})
            told += [
                _count(
                    finding, group, value, [each for each in known if each.of.get(group, UNKNOWN) == value]
                )
                for value in values
            ]
    return told


def _count(finding: str, group: str, value: str, examined: Iterable[Examined]) -> Accuracy:
    met = Counter((each.truth[finding], each.says(finding)) for each in examined)
    four = met[True, True], met[True, False], met[False, True], met[False, False]
    return Accuracy(finding, group, value, *four)
