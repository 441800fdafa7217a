"""Every key that may stand in gateway.yaml, in Markdown, from the models that read it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import date, time
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings.quantities import BYTES, SECONDS, Hours, Rate, read_duration, read_size
from gateway.settings.sections import Settings
from gateway.settings.watching import Days

# What a value of each kind looks like: the kind, its unit, an example.
_KINDS: list[tuple[Any, str, str]] = [
    (Rate, "rate (calls in a second, minute or hour)", "20/min"),
    (Hours, "hours of the day, local time", "19:00-07:00"),
    (Days, "days of the week", "mon-fri"),
    (time, "time of day, in quotes", '"03:00"'),
    (date, "date", "2026-12-24"),
    (re.Pattern, "pattern (a regular expression)", "^final"),
    (SecretStr, "secret", "${file:/run/secrets/x}"),
    (Path, "path", "/etc/gateway/ca.pem"),
    (bool, "true or false", "true"),
    (int, "number", "8"),
    (float, "number", "0.5"),
    (str, "text", "text"),
]
# What is a number to the model, and written with its unit: by who reads it.
_READ: dict[Any, tuple[str, str]] = {
    read_duration: ("duration (500ms, 5s, 10m, 24h, 1d)", "10m"),
    read_size: ("size (kB, MB, GB; a number alone is bytes)", "2GB"),
}
_HEAD = ["| key | kind | default | example |", "|---|---|---|---|"]
_SHOWN = 60
_YES_OR_NO = ("true or false",)
_TIMES = tuple((unit, SECONDS[unit]) for unit in ("h", "m", "s", "ms"))
_SIZES = (*((unit, BYTES[unit]) for unit in ("GB", "GiB", "MB", "MiB", "kB", "KiB")), ("", 1))


def write() -> str:
    lines = [
        "# Every key of gateway.yaml",
        "",
        "Each may also be set by a variable `GATEWAY_…`, with `__` between levels. You choose each `NAME`.",
        "",
        *_HEAD,
        *_table(_rows(Settings, "")),
    ]
    for point in sorted(entry_points(group="gateway.adapters"), key=lambda point: point.name):
        lines += [
            "",
            f"## The options of `kind: {point.name}`",
            "",
            "They stand beside the other keys of an adapter.",
            "",
            *_HEAD,
            *_table(_rows(point.load().Options, "adapters.NAME.")),
        ]
    return "\n".join(lines)


def _table(rows: Iterable[tuple[str, str, str, str]]) -> list[str]:
    return [f"| `{key}` | {kind} | {default} | {example} |" for key, kind, default, example in rows]


def keys() -> list[str]:
    return [key for key, *_ in _rows(Settings, "")]


def _rows(model: type[BaseModel], above: str, only: str = "") -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{above}{field.alias or name}"
        annotation = field.annotation if not field.metadata else Annotated[field.annotation, *field.metadata]
        inner, below = _models_of(annotation, key)
        if inner:
            for each in inner:
                kind = _kind_of(each)
                more = f" ({'kind: ' + kind})" if kind and len(inner) > 1 else ""
                yield from ((row[0], *row[1:]) for row in _rows(each, below, more))
        if not inner or _scalars_of(annotation):
            kind, example = _describe(annotation)
            default = _default(field, kind)
            example = default if default.startswith("`") and kind not in _YES_OR_NO else f"`{example}`"
            yield f"{key}", f"{kind}{only}", default, example


def _models_of(annotation: Any, key: str) -> tuple[list[type[BaseModel]], str]:
    """The sections below, and how their keys begin."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], f"{key}."
    if origin is Annotated:
        return _models_of(arguments[0], key)
    if origin is dict:
        return _models_of(arguments[1], f"{key}.NAME")
    if origin in (list, tuple):
        return _models_of(arguments[0], f"{key}[]")
    if origin in (typing.Union, types.UnionType):
        found = [_models_of(each, key) for each in arguments]
        models = [model for inner, _ in found for model in inner]
        return models, next((below for inner, below in found if inner), f"{key}.")
    return [], f"{key}."


def _scalars_of(annotation: Any) -> bool:
    """Whether something besides a section may stand there."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return False
    return any(
        typing.get_origin(each) is Literal or each in (str, int, bool) for each in typing.get_args(annotation)
    )


def _describe(annotation: Any) -> tuple[str, str]:
    for known, kind, example in _KINDS:
        if known in (annotation, typing.get_origin(annotation)):
            return kind, example
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        readers = [each.func for each in arguments[1:] if isinstance(each, BeforeValidator)]
        told = next((_READ[reader] for reader in readers if reader in _READ), None)
        return told or _describe(arguments[0])
    if origin is Literal:
        words = [str(each).lower() if isinstance(each, bool) else str(each) for each in arguments]
        return " or ".join(f"`{word}`" for word in words), words[0]
    if origin in (list, tuple):
        kind, example = _describe(arguments[0])
        return f"list of: {kind}", f"[{example}]"
    if origin is dict:
        return f"names, each with: {_describe(arguments[1])[0]}", "{}"
    if origin in (typing.Union, types.UnionType):
        each_told = [_describe(each) for each in arguments if each is not type(None)]
        return ", or ".join(dict.fromkeys(kind for kind, _ in each_told)), each_told[0][1]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{each.value}`" for each in annotation), str(next(iter(annotation)).value)
    for known, kind, example in _KINDS:
        if isinstance(annotation, type) and isinstance(known, type) and issubclass(annotation, known):
            return kind, example
    return "text", "text"


def _default(field: FieldInfo, kind: str) -> str:
    if field.is_required():
        return "must be set"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ([], {}, ()):
        return "none"
    if isinstance(value, BaseModel):
        return "see its keys"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Rate):
        return f"`{value}`"
    if isinstance(value, list | tuple):
        quoted = (f'"{each}"' if str(each).startswith("*") else str(each) for each in value)  # YAML's aliases
        return f"`[{', '.join(quoted)}]`"
    for begun, units in (("duration", _TIMES), ("size", _SIZES)):
        if kind.startswith(begun):
            unit, many = next(
                (each for each in units if value >= each[1] and value % each[1] == 0), units[-1]
            )
            return f"`{value / many:g}{unit}`"
    return f"`{str(value)[:_SHOWN]}`"


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else next(iter(typing.get_args(field.annotation)), None)
