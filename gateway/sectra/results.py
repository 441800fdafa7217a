"""Results as they stand on a slide: drawings, patch galleries, and what surrounds them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from gateway.sectra.wire import Free, ListOf, Message, Name, Text, null_as_dict

Properties = dict[str, str | int | float]

# Shapes. Coordinates: x and y are both fractions of the image's width.


class Point(Message):
    x: float
    y: float


class Polygon(Message):
    points: list[Point]


class Polyline(Message):
    points: list[Point]


class Label(Message):
    location: Point
    label: str


class Style(Message):
    stroke_style: str | None = None
    fill_style: str | None = None
    size: int | float | None = None


class Primitive(Message):
    style: Style | None = None
    polygons: ListOf[Polygon] = Field(default_factory=list)
    polylines: ListOf[Polyline] = Field(default_factory=list)
    labels: ListOf[Label] = Field(default_factory=list)


def _one_as_list(value: object) -> object:
    """Older apps and servers know a single object only; newer ones refuse it."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class PrimitiveResult(Message):
    type: Literal["primitive"] = "primitive"
    content: Annotated[list[Primitive], BeforeValidator(_one_as_list)]


class Patch(Message):
    tag: int
    position: Point
    sort_key_value: float


class Action(Message):
    """A button below a patch gallery; `state` is 1 when the user pressed it."""

    id: str
    state: int = 0
    name: str = ""
    tooltip: str = ""


class Status(Message):
    value: bool | None = True
    message: str | None = None


class PatchCollection(Message):
    description: str = ""
    polygons: ListOf[Polygon] = Field(default_factory=list)
    patches: ListOf[Patch] = Field(default_factory=list)
    actions: ListOf[Action] = Field(default_factory=list)
    tags: ListOf[str] = Field(default_factory=list)
    patch_size: int | float
    magnification: float
    statuses: Annotated[dict[str, Status], BeforeValidator(null_as_dict)] = Field(
        default_factory=lambda: {"allowVerify": Status()}
    )


class PatchResult(Message):
    type: Literal["patchCollection"] = "patchCollection"
    content: PatchCollection


class OtherResult(Message):
    """A kind of result younger than this code: passed on as it is."""

    type: str


def _kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("primitive", "patchCollection") else "other"


ResultContent = Annotated[
    Annotated[PrimitiveResult, Tag("primitive")]
    | Annotated[PatchResult, Tag("patchCollection")]
    | Annotated[OtherResult, Tag("other")],
    Discriminator(_kind),
]


class ResultData(Message):
    context: Free = Field(default_factory=dict)
    result: ResultContent | None = None


class Attachment(Message):
    name: str
    state: str = "new"


def _without_nulls(value: object) -> object:
    """A property without a value has nothing to show."""
    if isinstance(value, dict):
        return {name: shown for name, shown in value.items() if shown is not None}
    return null_as_dict(value)


class NewResult(Message):
    """A result as an app makes it, also the temporary answer to an invocation."""

    slide_id: Name
    display_result: Text = ""
    display_properties: Annotated[Properties, BeforeValidator(_without_nulls)] = Field(default_factory=dict)
    application_version: Text = ""
    attachments: ListOf[Attachment] = Field(default_factory=list)
    data: Annotated[ResultData, BeforeValidator(null_as_dict)] = Field(default_factory=ResultData)


class StoredResult(NewResult):
    """A result as Sectra keeps it. `version_id` has to go back with the next update."""

    id: int
    version_id: str
