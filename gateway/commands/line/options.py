"""What several commands are told, and how the shell completes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.nearest import did_you_mean

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="gateway.yaml; else GATEWAY_CONFIG names it", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="for scripts")]


def moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter("a date, or date and time, as in 2026-01-31T12:00") from None


def one_of(kind: type[StrEnum]) -> dict[str, Any]:
    """For an argument or option that takes one of these."""

    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            meant = did_you_mean(text, kind)
            raise typer.BadParameter(f"{text} is none of {', '.join(kind)}{meant}") from None

    def begin_so(begun: str) -> list[str]:
        return [each.value for each in kind if each.value.startswith(begun)]

    return {"parser": parse, "autocompletion": begin_so}


def names_of(kind: str) -> Callable[[str], list[str]]:
    """For the shell to complete."""

    def begin_so(begun: str) -> list[str]:
        from gateway.commands.completing import names

        return [name for name in names(kind) if name.startswith(begun)]

    return begin_so
