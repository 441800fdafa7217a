"""The departments and their applications: what is sent to whom, and where its results go."""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gateway.settings.consequences import When
from gateway.settings.parts import AeTitle, Name, Part, Positive
from gateway.settings.quantities import Duration, PositiveDuration, Size
from gateway.settings.rules import Pattern, Rule, SopClass
from gateway.settings.watching import Expect, Register


class TaggedPolygon(Part):
    tags: list[str]  # none: the user draws, and chooses nothing


class TaggedPolygonInput(Part):
    tagged_polygon: TaggedPolygon


class Accept(Part):
    """An empty list accepts all."""

    modalities: list[str] = []
    staining: list[str] = []
    body_parts: list[str] = []
    exam_codes: list[str] = []
    priorities: list[str] = []
    min_microns_per_pixel: float | None = None
    max_microns_per_pixel: float | None = None
    max_pixels: Positive | None = None
    max_bytes: Size | None = None


class Choose(Part):
    """Which instances of a study go to the vendor; an empty list chooses all.

    All `tags` must hold; of the others, one entry. Results of others and our own never go, but a class of
    objects that `sop_classes` names isn't taken for results by its class alone."""

    modalities: list[str] = []
    sop_classes: list[SopClass] = []
    series: list[Pattern] = []  # found in the series' description
    tags: list[Rule] = []


class Retry(Part):
    attempts: Positive = 8
    first: Duration = 5.0
    most: Duration = 600.0

    def pause(self, failed: int, asked: float | None = None) -> float:
        """Seconds until the next try after so many that failed; never less than the peer asked for."""
        grown = min(self.most, self.first * 2.0 ** min(failed - 1, 30))
        return max(grown * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311 - jitter


class Application(Part):
    display_name: Annotated[str, Field(min_length=1)]
    manufacturer: str = ""
    input: Literal["whole_slide", "multi_area"] | TaggedPolygonInput = "whole_slide"
    adapter: Name
    archives: list[Name] = []
    when_unreachable: Literal["wait", "next"] = "wait"
    deliver: list[Name] = ["sectra"]
    when: list[When] = []
    deidentify: Literal[False] | Name = False
    accept: Accept = Accept()
    choose: Choose = Choose()
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    settle: Duration = 10.0
    ae_title: AeTitle | None = None  # studies sent to it start this application
    result_within: PositiveDuration = 1800.0
    allow_phi: bool = False
    shadow: list[Name] = []  # applications or adapters whose vendors get the study too, for comparison alone
    retry: Retry = Retry()
    keep_days: Positive = 365
    expect: Expect | None = None
    register_: Register | None = Field(None, alias="register")

    @field_validator("input", mode="before")
    @classmethod
    def _input_is_known(cls, value: Any) -> Any:
        if isinstance(value, dict | TaggedPolygonInput) or value in ("whole_slide", "multi_area"):
            return value
        raise ValueError("allowed: whole_slide, multi_area, {tagged_polygon: {tags: [A, B]}}")

    @field_validator("deidentify", mode="before")
    @classmethod
    def _profile_is_named(cls, value: Any) -> Any:
        if value is False or isinstance(value, str):
            return value
        raise ValueError("false, or the name of one of the profiles, is expected")


class DepartmentHl7(Part):
    template: str | None = None


class Department(Part):
    contact: str = ""
    hl7: DepartmentHl7 | None = None
    applications: dict[Name, Application] = {}
