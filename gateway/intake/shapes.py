"""What callers send in JSON, read by the shape that it must have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway.intake.problems import Problem
from gateway.nearest import did_you_mean, meant_choice

M = TypeVar("M", bound=BaseModel)


PLAIN = r"^[^\x00-\x1f\x7f-\x9f]+$"  # no control characters
_MOMENT = TypeAdapter(datetime)
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
_MORE_THAN_BLANKS = r"^ *[^\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
# Blanks around a number mean nothing in DICOM, and come along when it is copied.
Number = Annotated[
    str,
    Field(min_length=1, max_length=200, pattern=_MORE_THAN_BLANKS),
    AfterValidator(lambda given: given.strip(" ")),
]


def read(model: type[M], body: object, besides: Iterable[str] = ()) -> M:
    """`besides`: what may stand there too, and was read before."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = (_sentence(model, fault, besides) for fault in error.errors())
        raise Problem(422, "; ".join(faults)) from None


def _sentence(model: type[BaseModel], fault: ErrorDetails, besides: Iterable[str]) -> str:
    """What was given isn't repeated: it may be a patient's."""
    steps = list(fault["loc"])
    while steps and isinstance(steps[-1], int):  # of several values; mostly there is one
        steps.pop()
    where, said = ".".join(map(str, steps)) or "body", fault["msg"].removeprefix("Value error, ")
    if fault["input"] in ("", []) and fault["type"] != "missing":
        return f"{where}: is empty; give it a value, or leave it out"
    if fault["type"] == "extra_forbidden":
        known = [*_fields_at(model, steps[:-1]), *(besides if len(steps) == 1 else ())]
        return f"{where}: isn't known here; allowed: {', '.join(known)}{did_you_mean(steps[-1], known)}"
    return f"{where}: {said}{meant_choice(fault)}"


def _fields_at(model: type[BaseModel], steps: Iterable[str | int]) -> list[str]:
    for step in steps:
        inner = model.model_fields[str(step)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)  # as our bodies are nested
        model = inner
    return list(model.model_fields)


PAGED = ("limit", "cursor")


def moment(text: object) -> datetime | None:
    try:
        if text is not None and not (isinstance(text, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)):
            raise ValueError
        return None if text is None else _MOMENT.validate_python(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a date and time as in 2026-01-31T12:00:00Z") from None


def limit_of(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 500:
        raise Problem(422, "limit: a number from 1 to 500")
    return int(text)


def place_of(cursor: str | None) -> int | None:
    """Where the page before ended, for lists that go by a number."""
    if cursor is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", cursor):
        raise Problem(422, "cursor: take it from next_cursor of the page before")
    return int(cursor)
