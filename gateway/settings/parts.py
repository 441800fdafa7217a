"""What every section is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        raise ValueError("a name has letters, digits, dots, dashes and underscores, 63 at the most")
    return value


def shaped(pattern: str, sentence: str) -> AfterValidator:
    """A text that looks so, or the sentence says how."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(sentence)
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_name)]
AeTitle = Annotated[
    str, shaped(r"[!-\[\]-~ ]{1,16}", "an AE title has 1 to 16 plain characters, no backslash")
]
Port = Annotated[int, Field(ge=0, le=65535)]  # of ours; 0 takes a free one
PeerPort = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def parts_of(part: BaseModel, place: str = "") -> Iterator[tuple[str, BaseModel]]:
    """All that it is made of, each with its place in the configuration."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for key, entry in entries:
            if isinstance(entry, BaseModel):
                within = ".".join(filter(None, (place, name, key)))
                yield within, entry
                yield from parts_of(entry, within)
