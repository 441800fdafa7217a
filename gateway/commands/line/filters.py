"""Which jobs are meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Annotated, Any

import typer

from gateway.commands.line.options import moment, names_of, one_of
from gateway.jobs.states import State

_FILTERS = {
    "state": Annotated[
        list[State] | None,
        typer.Option(metavar="STATE", help="any of several, as with the others", **one_of(State)),
    ],
    "accession_number": Annotated[list[str] | None, typer.Option("--accession", metavar="NUMBER")],
    "study_instance_uid": Annotated[list[str] | None, typer.Option("--study", metavar="UID")],
    "slide_id": Annotated[list[str] | None, typer.Option("--slide", metavar="ID")],
    "adapter": Annotated[list[str] | None, typer.Option(metavar="NAME", autocompletion=names_of("adapters"))],
    "application": Annotated[
        list[str] | None, typer.Option(metavar="NAME", autocompletion=names_of("applications"))
    ],
    "department": Annotated[
        list[str] | None, typer.Option(metavar="NAME", autocompletion=names_of("departments"))
    ],
    "since": Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="as in 2026-01-31T12:00")
    ],
}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say which jobs are meant; it gets them as one argument, `filters`."""

    @wraps(command)
    def with_filters(**given: Any) -> None:
        command({name: given.pop(name) for name in _FILTERS}, **given)

    own = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FILTERS.items()
    ]
    parameters = [parameter for name, parameter in own.parameters.items() if name != "filters"]
    with_filters.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    return with_filters
