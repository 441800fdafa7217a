"""How a message is read and written: names, what is forgiven, and what a bad one is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

_LONGEST = 1024


class BadMessage(ValueError):
    """A message that can't be understood. `faults` name the places and what is wrong there, never values."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


class Message(BaseModel):
    """Names are snake_case here and camelCase on the wire; what we don't know is kept."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="allow",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON to send."""
        return self.model_dump(mode="json", exclude_none=True)


def _null_as_list(value: object) -> object:
    return [] if value is None else value


def _null_as_text(value: object) -> object:
    return "" if value is None else value


def null_as_dict(value: object) -> object:
    return {} if value is None else value


def _check_length(name: str) -> str:
    """In bytes: what is looked for by name is indexed, and no index takes more."""
    if len(name.encode("utf-8", "replace")) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} bytes")
    return name


T = TypeVar("T")
ListOf = Annotated[list[T], BeforeValidator(_null_as_list)]
Free = Annotated[dict[str, Any], BeforeValidator(null_as_dict)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_check_length)]
Text = Annotated[str, BeforeValidator(_null_as_text)]
M = TypeVar("M", bound=Message)


def read(model: type[M], data: object) -> M:
    """Validate, and say what is wrong without repeating what was sent: it may identify a patient."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadMessage([f"{_place(fault['loc'])}: {_complaint(fault)}" for fault in faults[:20]]) from None


_KINDS = {"wholeSlide", "taggedPolygon", "multiArea", "primitive", "patchCollection", "other"}


def _place(path: tuple[int | str, ...]) -> str:
    """The path as far as the names are ours; keys of free dictionaries are the sender's own words."""
    steps: list[str] = []
    for step in path:
        if step not in _KINDS:
            steps.append(str(step))
        if step in ("context", "displayProperties", "statuses"):
            break
    return ".".join(steps) or "body"


def _complaint(fault: Any) -> str:
    if fault["type"] == "union_tag_invalid":
        return "is of an unknown type"
    return str(fault["msg"]).removeprefix("Value error, ")
