"""JSON from outside: as much of it as is worth reading, and no text in it that nothing can keep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

DEEPEST = 100  # no message has more levels, and what follows must not run out of stack
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class Unread(ValueError):
    """What was sent isn't read; the sentence quotes nothing of it."""


class NotJson(Unread):
    pass


class TooMuch(Unread):
    pass


class BadText(Unread):
    """A NUL, or half of a surrogate pair: no database, header or file name takes one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`mended`: keys of the outermost object below which bad text is put right instead of refused."""

    size: int
    values: int
    mended: Collection[str] = ()


def count_values(raw: bytes | bytearray) -> int:
    """Never fewer than there are."""
    return 1 + sum(map(raw.count, (b",", b"[", b"{")))


def read(raw: bytes | bytearray, most: Bounds) -> Any:
    if len(raw) > most.size:
        raise TooMuch(f"the body is larger than {most.size / 2**20:g} MiB")
    if count_values(raw) > most.values:
        raise TooMuch(f"the body holds more than {most.values} values")
    body = parse(raw)
    return _check_text(body, most.mended) if _SUSPICIOUS.search(raw) else body


def parse(raw: bytes | bytearray) -> Any:
    """What is passed on as it is: any text, but nothing that JSON doesn't know though Python reads it."""
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise NotJson(f"the body is nested deeper than {DEEPEST} levels") from None
    except ValueError:
        raise NotJson("the body isn't JSON") from None
    _check_depth(body)
    return body


def _check_depth(body: object) -> None:
    level = [body]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise NotJson(f"the body is nested deeper than {DEEPEST} levels")


def _members(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_text(body: Any, mended: Collection[str]) -> Any:
    if isinstance(body, dict):
        return {
            _checked(key): _mend(value) if key in mended else _check_text(value, ())
            for key, value in body.items()
        }
    if isinstance(body, list):
        return [_check_text(value, ()) for value in body]
    return _checked(body) if isinstance(body, str) else body


def _checked(text: str) -> str:
    if _UNKEEPABLE.search(text):
        raise BadText("the body holds a character that isn't one: a NUL, or half of a surrogate pair")
    return text


def _mend(value: Any) -> Any:
    if isinstance(value, dict):
        return {_mend(key): _mend(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_mend(member) for member in value]
    return _UNKEEPABLE.sub("\ufffd", value) if isinstance(value, str) else value


def _finite(text: str) -> float:
    """Neither JSON nor PostgreSQL knows an infinity; Python reads 1e999 as one."""
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} isn't JSON")
