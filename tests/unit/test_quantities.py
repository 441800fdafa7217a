"""A duration and a size are written in one way, wherever in the configuration they stand."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.settings.sections import Accept, Application, Retry

DURATIONS = {
    "500ms": 0.5,
    "5s": 5.0,
    "10m": 600.0,
    "24h": 86400.0,
    "1d": 86400.0,
    " 1.5 h ": 5400.0,
    5: 5.0,
    0.5: 0.5,
}
NO_DURATIONS = ["5", "fast", "5 weeks", "-5s", -5, True, float("nan"), float("inf"), 10**400, "9" * 400 + "d"]
SIZES = {"2GB": 2_000_000_000, "1KiB": 1024, 4096: 4096}
NO_SIZES = ["2", "much", -1, True, 1.5, "9" * 400 + "TB"]
LEAST: dict[str, dict[str, Any]] = {  # what an adapter can't do without
    "milvue": {"url": "https://milvue.example", "token": "t", "commands": ["smarturgences"]},
    "sectra-ia": {"url": "https://vendor.example/ia/kidney"},
    "dicomweb": {"url": "https://vendor.example/dicom-web"},
    "dimse": {"host": "vendor", "port": 104, "ae_title": "VENDOR"},
}


def _places(kind: type, *names: str) -> Iterator[Any]:
    for entry in entry_points(group="gateway.adapters"):
        for name, field in entry.load().Options.model_fields.items():
            if field.annotation in (kind, kind | None) and name not in names:
                yield pytest.param(entry.load().Options, LEAST[entry.name], name, id=f"{entry.name}-{name}")


TIMED = [
    pytest.param(Application, {"display_name": "a", "adapter": "a"}, "settle", id="settle"),
    pytest.param(Application, {"display_name": "a", "adapter": "a"}, "result_within", id="result_within"),
    pytest.param(Retry, {}, "first", id="retry-first"),
    *_places(float),
]
SIZED = [pytest.param(Accept, {}, "max_bytes", id="max_bytes"), *_places(int, "port", "uploads_at_once")]


@pytest.mark.parametrize(("model", "least", "name"), TIMED)
def test_a_duration_is_written_alike_everywhere(
    model: type[BaseModel], least: dict[str, Any], name: str
) -> None:
    for written, seconds in DURATIONS.items():
        assert getattr(model(**{**least, name: written}), name) == seconds
    for written in NO_DURATIONS:
        assert _refusal(model, {**least, name: written}) == [
            "Value error, a duration is written like 500ms, 5s, 10m or 24h"
        ]


@pytest.mark.parametrize(("model", "least", "name"), SIZED)
def test_a_size_is_written_alike_everywhere(model: type[BaseModel], least: dict[str, Any], name: str) -> None:
    for written, size in SIZES.items():
        assert getattr(model(**{**least, name: written}), name) == size
    for written in NO_SIZES:
        assert _refusal(model, {**least, name: written}) == [
            "Value error, a size is written like 500MB, 2GB or 1TiB"
        ]


def _refusal(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        model(**values)
    return [error["msg"] for error in refused.value.errors()]
