"""gateway run, gateway check."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.line.options import Config, Json, one_of

app = typer.Typer()


class Only(StrEnum):
    INTAKE = "intake"
    WORKERS = "workers"


@app.command()
def run(
    config: Config = None,
    only: Annotated[
        Only | None, typer.Option(metavar="PART", help="intake or workers alone", **one_of(Only))
    ] = None,
) -> None:
    """Run the gateway."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is to read the configuration again, once it runs
    from gateway.commands import daemon

    raise typer.Exit(daemon.run(config, only.value if only else None))


@app.command()
def check(
    config: Config = None,
    offline: Annotated[bool, typer.Option("--offline", help="the configuration only")] = False,
    alive: Annotated[
        bool, typer.Option("--alive", help="only whether the gateway that runs here says it is well")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the configuration, then each peer."""
    if alive:
        from gateway.commands.alive import alive as ask

        raise typer.Exit(ask(config))
    from gateway.commands import check as command

    raise typer.Exit(command.check(config, offline, as_json))
