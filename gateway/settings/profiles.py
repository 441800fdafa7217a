"""What a vendor may know: the profiles by which studies are sent to it without names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import field_validator, model_validator

from gateway.settings.parts import Part
from gateway.settings.quantities import Written

Option = Literal[
    "retain-longitudinal-full-dates",
    "retain-longitudinal-modified-dates",
    "retain-device",
    "retain-institution",
    "retain-patient-characteristics",
    "retain-safe-private",
    "clean-descriptors",
    "clean-structured-content",
    "clean-pixel",
]
_PRIVATE = re.compile(r'\(?([0-9a-fA-F]{4}),\s*"?([^",]{1,64}?)"?\s*,\s*(?:xx)?([0-9a-fA-F]{2})\)?')


@dataclass(frozen=True, slots=True)
class PrivateTag(Written):
    """One attribute of a maker's own, as PS3.15 writes it: `(0019,"SIEMENS MR HEADER",0C)`."""

    group: int
    creator: str
    element: int

    @classmethod
    def parse(cls, value: str) -> PrivateTag:
        found = _PRIVATE.fullmatch(value.strip())
        group = int(found[1], 16) if found else 0
        if found is None or group % 2 == 0 or group < 9:
            raise ValueError(
                'a private attribute is written like (0019,"SIEMENS MR HEADER",0C): an odd group from 0009 '
                "on, its creator, the last two digits"
            )
        return cls(group, found[2].strip(), int(found[3], 16))


class Profile(Part):
    """PS3.15's Basic Profile, with options. `descriptors`: what becomes of a text that may stay and in which
    something known of the patient is found; `keep_overview`: of a slide, whose label never leaves;
    `keep_recordings`: video leaves, whose streams pass unread."""

    base: Literal["basic"] = "basic"
    options: list[Option] = []
    keep_private: list[PrivateTag] = []
    descriptors: Literal["drop", "replace"] = "drop"
    keep_overview: bool = False
    keep_recordings: bool = False

    @field_validator("options")
    @classmethod
    def _are_not_both(cls, options: list[Option]) -> list[Option]:
        if {"retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"} <= set(options):
            raise ValueError("dates are kept as they are or moved, not both: choose one of the two")
        return options

    @model_validator(mode="after")
    def _private_is_listed(self) -> Profile:
        retained = "retain-safe-private" in self.options
        if retained and not self.keep_private:
            raise ValueError("retain-safe-private needs keep_private: which private attributes are safe")
        if self.keep_private and not retained:
            raise ValueError("keep_private needs the option retain-safe-private")
        return self
