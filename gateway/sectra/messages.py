"""What Sectra and an app say to each other (IA-API 1.5 to 1.10): slides, registration, invocations.

Liberal in what is accepted: unknown fields are kept and go back out as they came, null stands for missing,
and the older forms are read as the newer. Strict in what is sent: exact names, primitive content as a list.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict, model_validator

from gateway.sectra.results import Polygon, StoredResult
from gateway.sectra.wire import BadMessage, Free, ListOf, Message, Name, read
from gateway.settings.addresses import leads_astray

QualityStatus = Literal["NotSet", "QualityOk", "Rejected"]


class Size(Message):
    width: int = Field(gt=0)
    height: int = Field(gt=0)


def _number_as_square(value: object) -> object:
    return {"width": value, "height": value} if isinstance(value, int) else value


class FocalPlane(Message):
    id: str
    offset_um: float | None = None


class OpticalPath(Message):
    id: str
    description: str | None = None


class TileFormat(Message):
    mime_type: str | None = None
    extension: str | None = None


class DisplayName(Message):
    display_name: str | None = None


class Specimen(Message):
    anatomy: str | None = None
    description: str | None = None


class Quality(Message):
    """`status` is read as any text, so that a newer server's word doesn't hide the slide."""

    status: str
    version_id: str | None = None


class CaseImage(Message):
    """One slide of a case."""

    id: Name
    staining: DisplayName | None = None
    block: DisplayName | None = None
    specimen: Specimen | None = None
    series_instance_uid: str | None = None
    lis_slide_id: str | None = Field(default=None, repr=False)


class ImageInfo(CaseImage):
    """One slide. What identifies the patient comes only when asked for, much only in the extended scope."""

    is_streamable: bool | None = None
    image_size: Size | None = None
    tile_size: Annotated[Size | None, BeforeValidator(_number_as_square)] = None
    microns_per_pixel: float | None = None
    focal_planes: ListOf[FocalPlane] = Field(default_factory=list)
    optical_paths: ListOf[OpticalPath] = Field(default_factory=list)
    stored_tile_format: TileFormat | None = None
    available_tile_formats: ListOf[TileFormat] = Field(default_factory=list)
    file_format: TileFormat | None = None
    body_part: str | None = None
    exam_code: str | None = None
    exam_description: str | None = None
    station_name: str | None = None
    priority: int | str | None = None
    quality_control: Quality | None = None
    accession_number_issuer: str | None = Field(default=None, repr=False)
    accession_number: str | None = Field(default=None, repr=False)
    study_instance_uid: str | None = None
    exam_id: str | None = Field(default=None, repr=False)
    exam_date_time: str | None = Field(default=None, repr=False)
    exam_free_fields: ListOf[Any] = Field(default_factory=list, repr=False)


class AppInfo(Message):
    """Which versions the other side speaks."""

    api_version: Name
    software_version: str | None = None


# Registration


class TagChoice(Message):
    tags: list[str]


class InputTemplate(Message):
    type: Literal["wholeSlide", "taggedPolygon", "multiArea"]
    content: TagChoice | None = None


class Registration(Message):
    """What the administrator gets who presses "Retrieve registration info"."""

    application_id: str
    display_name: str
    manufacturer: str
    url: str
    input_template: InputTemplate
    context: dict[str, Any] = Field(default_factory=dict)


# Invocations


def _check_step(name: str) -> str:
    if leads_astray(name):
        raise ValueError("is no name, but a way through a path")
    return name


def _check_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token.get_secret_value()):
        raise ValueError("must be printable ASCII, for it goes back in a header")
    return token


class CallbackInfo(Message):
    url: Name
    token: Annotated[SecretStr, AfterValidator(_check_header)]


class WholeSlide(Message):
    type: Literal["wholeSlide"] = "wholeSlide"


class TaggedArea(Message):
    polygon: Polygon
    tags: list[str] | None = None
    tag_index: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _index_with_tags(self) -> TaggedArea:
        if self.tags and self.tag_index is None:
            raise ValueError("tagIndex is required where tags are given")
        if self.tags and self.tag_index is not None and self.tag_index >= len(self.tags):
            raise ValueError("tagIndex lies outside the tags")
        return self


class TaggedPolygon(Message):
    type: Literal["taggedPolygon"] = "taggedPolygon"
    content: TaggedArea


class Areas(Message):
    polygons: list[Polygon]


class MultiArea(Message):
    type: Literal["multiArea"] = "multiArea"
    content: Areas


class Call(Message):
    """What every call of Sectra's holds."""

    application_id: Annotated[Name, Strict()]
    slide_id: Annotated[Name, Strict(), AfterValidator(_check_step)]
    callback_info: CallbackInfo | None = None
    context: Free = Field(default_factory=dict)
    cancellation_token: str | None = None


class Create(Call):
    action: Literal["create"] = "create"
    callback_info: CallbackInfo
    input: Annotated[WholeSlide | TaggedPolygon | MultiArea, Field(discriminator="type")]


class _OnResult(Call):
    @model_validator(mode="before")
    @classmethod
    def _name_the_slide(cls, data: Any) -> Any:
        """Some leave the slide out of the result, which the call names anyway."""
        if (
            isinstance(data, dict)
            and isinstance(data.get("input"), dict)
            and not data["input"].get("slideId")
        ):
            return {**data, "input": {**data["input"], "slideId": data.get("slideId")}}
        return data

    @model_validator(mode="after")
    def _keep_to_the_slide(self) -> _OnResult:
        result = getattr(self, "input", None)
        if isinstance(result, StoredResult) and result.slide_id != self.slide_id:
            raise ValueError("input.slideId is another slide than the call's")
        return self


class Modify(_OnResult):
    action: Literal["modify"] = "modify"
    callback_info: CallbackInfo
    input: StoredResult


class Delete(_OnResult):
    action: Literal["delete"] = "delete"
    input: StoredResult | None = None


class Cancel(Call):
    action: Literal["cancel"] = "cancel"


class Notification(Call):
    """New image files were imported; nobody waits. What it says of the image is asked anew."""

    action: str | None = None


Invocation = Create | Modify | Cancel | Delete
_ACTIONS: dict[str, type[Invocation]] = {
    "create": Create, "modify": Modify, "cancel": Cancel, "delete": Delete,
}  # fmt: skip


def parse_invocation(data: object) -> Invocation:
    """Read the body of `POST R`; raises `BadMessage`."""
    if not isinstance(data, dict):
        raise BadMessage(["body: must be a JSON object"])
    action = data.get("action")
    if not isinstance(action, str) or action not in _ACTIONS:
        raise BadMessage([f"action: must be one of {', '.join(_ACTIONS)}"])
    return read(_ACTIONS[action], data)


def parse_notification(data: object) -> Notification:
    """Read the body of `POST R/imagenotification`; raises `BadMessage`."""
    return read(Notification, data)
