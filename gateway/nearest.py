"""Who misspells a name is offered the one that was meant: keys and names of the configuration, words of
commands, filters of the API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_ALIKE = 0.6  # the share of letters that match
_LONGEST = 100  # what is longer is no slip of the hand, and would take long to compare
_CHOSEN_FROM = ("enum", "literal_error")


def find_nearest(given: object, known: Iterable[str]) -> str | None:
    """Case counts for nothing, nor which of `-` and `_` stands between two words."""
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST:
        return None
    alike = {_plain(each): each for each in sorted(known, reverse=True)}
    return next((alike[each] for each in get_close_matches(_plain(given), alike, 1, _ALIKE)), None)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """The end of a sentence that has just said what is known; empty where nothing is like it."""
    meant = find_nearest(given, known)
    return "" if meant is None else f"; did you mean {meant}?"


def no_such(what: str, given: str, known: Iterable[str]) -> str:
    """An application, say, that isn't configured."""
    names = sorted(known)
    return f"there is no {what} {given}; known: {', '.join(names) or 'none'}{did_you_mean(given, names)}"


def meant_choice(problem: Mapping[str, Any]) -> str:
    """For what pydantic says of a value that is none of those allowed."""
    if problem["type"] not in _CHOSEN_FROM:
        return ""
    return did_you_mean(problem.get("input"), re.findall("'([^']*)'", problem["ctx"]["expected"]))


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")
