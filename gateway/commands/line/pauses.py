"""gateway pause, gateway unpause."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.line.options import Config, names_of, one_of

app = typer.Typer()


class Pausable(StrEnum):
    APPLICATION = "application"
    ADAPTER = "adapter"
    DESTINATION = "destination"


Kind = Annotated[
    Pausable,
    typer.Argument(metavar="KIND", **one_of(Pausable)),
]


def _names_of_its_kind(context: typer.Context, begun: str) -> list[str]:
    return names_of(f"{context.params.get('kind')}s")(begun)


PausedName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="as the configuration names it", autocompletion=_names_of_its_kind),
]


@app.command()
def pause(
    kind: Kind,
    name: PausedName,
    why: Annotated[str, typer.Option("--why", metavar="REASON", help="slides will say it")],
    config: Config = None,
) -> None:
    """Let its jobs wait, and say so on their slides.

    Work goes on being taken in.
    """
    from gateway.commands import pause as command

    raise typer.Exit(command.pause(config, kind.value, name, why))


@app.command()
def unpause(kind: Kind, name: PausedName, config: Config = None) -> None:
    """Let its jobs go on."""
    from gateway.commands import pause as command

    raise typer.Exit(command.pause(config, kind.value, name, None))
