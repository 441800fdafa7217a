"""What the simulated Sectra takes as a result: every field known, every type exact, or it is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Point(Strict):
    x: float
    y: float


class Points(Strict):
    points: list[Point] = Field(min_length=1)


class Label(Strict):
    location: Point
    label: str


class Style(Strict):
    strokeStyle: str | None = None  # noqa: N815
    fillStyle: str | None = None  # noqa: N815
    size: int | None = None


class Primitive(Strict):
    style: Style | None = None
    polygons: list[Points] = []
    polylines: list[Points] = []
    labels: list[Label] = []


class Patch(Strict):
    tag: int
    position: Point
    sortKeyValue: float  # noqa: N815


class Button(Strict):
    id: str
    state: int
    name: str
    tooltip: str


class Status(Strict):
    value: bool | None = None
    message: str | None = None


class Patches(Strict):
    description: str
    polygons: list[Points]
    patches: list[Patch]
    tags: list[str]
    patchSize: int  # noqa: N815
    magnification: float
    statuses: dict[str, Status] = {}
    actions: list[Button] = []

    @model_validator(mode="after")
    def _name_tags(self) -> Patches:
        if any(not 0 <= patch.tag < len(self.tags) for patch in self.patches):
            raise ValueError("a patch has a tag that isn't listed")
        return self


class PrimitiveResult(Strict):
    type: Literal["primitive"]
    content: list[Primitive]


class PatchResult(Strict):
    type: Literal["patchCollection"]
    content: Patches


class Data(Strict):
    context: dict[str, Any] | None = None
    result: Annotated[PrimitiveResult | PatchResult, Field(discriminator="type")]


class Attachment(Strict):
    name: str
    state: Literal["new", "upload-in-progress", "stored"]


class NewResult(Strict):
    slideId: str  # noqa: N815
    displayResult: str  # noqa: N815
    displayProperties: dict[str, str | int | float] = {}  # noqa: N815
    applicationVersion: str  # noqa: N815
    attachments: list[Attachment] = []
    data: Data


class ChangedResult(NewResult):
    id: int | None = None
    versionId: str  # noqa: N815


class AnsweredResult(NewResult):
    """What an app answers to an invocation: the stored result, or one that is only shown for now."""

    id: int | None = None
    versionId: str | None = None  # noqa: N815


class QualityControl(Strict):
    status: Literal["NotSet", "QualityOk", "Rejected"]
    versionId: str  # noqa: N815


class ChangedQuality(Strict):
    applicationVersion: str  # noqa: N815
    qualityControl: QualityControl  # noqa: N815


def list_points(result: NewResult) -> list[Point]:
    content = result.data.result.content
    if isinstance(content, Patches):
        return [point for polygon in content.polygons for point in polygon.points] + [
            patch.position for patch in content.patches
        ]
    shapes = [shape for each in content for shape in (*each.polygons, *each.polylines)]
    return [point for shape in shapes for point in shape.points] + [
        label.location for each in content for label in each.labels
    ]
