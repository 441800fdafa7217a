"""Of what kind a study is, for figures by kind: nothing that tells whose it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

STRATA = "strata"  # in a job's context
_GROUPS = ((18, "0-17"), (40, "18-39"), (65, "40-64"), (80, "65-79"), (150, "80+"))
_IN_YEARS = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_LONGEST = 64


def age_group(age: str) -> str:
    """Of an age as DICOM writes it (`047Y`, `006M`), or in years; empty if it is none."""
    found = re.fullmatch(r"\s*(\d{1,3})\s*([DWMY]?)\s*", age)
    if found is None:
        return ""
    years = int(found[1]) / _IN_YEARS[found[2] or "Y"]
    return next((group for below, group in _GROUPS if years < below), "")


class Strata:
    """What the first image says of its study, noted while it passes by."""

    def __init__(self, check: Callable[[Dataset], None]) -> None:
        self._check = check
        self.known: dict[str, str] = {}

    def __call__(self, heading: Dataset) -> None:
        self._check(heading)
        if not self.known:
            self.known = {name: value for name, value in _strata_of(heading).items() if value}


def _strata_of(heading: Dataset) -> dict[str, str]:
    def text(keyword: str) -> str:
        return " ".join(str(heading.get(keyword) or "").split())[:_LONGEST]

    maker, model = text("Manufacturer"), text("ManufacturerModelName")
    device = model if model.casefold().startswith(maker.casefold()) else f"{maker} {model}"
    return {
        "modality": text("Modality"),
        "device": device.strip(),
        "sex": text("PatientSex"),
        "age": age_group(text("PatientAge")) or _age_at(text("PatientBirthDate"), text("StudyDate")),
    }


def _age_at(born: str, then: str) -> str:
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", then)) or then < born:
        return ""
    return age_group(str((int(then) - int(born)) // 10_000))
