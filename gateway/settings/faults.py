"""What pydantic finds wrong, in the words of those who write gateway.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.nearest import meant_choice

_LIST = "a list is expected, like [a, b]"
_KEYS = "keys with values are expected, like {key: value}"
_DATE = "a date is written like 2026-01-31"
_WORDS = {
    "list_type": _LIST,
    "tuple_type": _LIST,
    "too_short": "an empty list means nothing here: name at least one",
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "string_type": "a text is expected; put it in quotes",
    "string_too_short": "is empty; give it a value",
    "path_type": "a path is expected",
    "bool_type": "true or false is expected",
    "bool_parsing": "true or false is expected",
    "int_type": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": _DATE,
}


def say(fault: Mapping[str, Any]) -> str:
    """Without its place."""
    if fault["type"] in _WORDS:
        return _WORDS[fault["type"]]
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "should be", 1)
    return f"{message}{meant_choice(fault)}"


def without_other_branches(faults: Iterable[Any]) -> list[Any]:
    """Where a word or a mapping may stand, whoever writes a mapping hears of no word."""
    kept = list(faults)
    for fault in list(kept):
        place, branch = tuple(fault["loc"][:-1]), str(fault["loc"][-1:])
        others = [each for each in kept if each is not fault and tuple(each["loc"][: len(place)]) == place]
        if fault["type"] == "literal_error" and "literal[" in branch and others:
            kept.remove(fault)
    return kept
