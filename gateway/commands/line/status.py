"""gateway status."""

from __future__ import annotations

import typer

from gateway.commands.line.options import Config, Json

app = typer.Typer()


@app.command()
def status(config: Config = None, as_json: Json = False) -> None:
    """What is broken or paused, and what mends it."""
    from gateway.commands import status as command

    raise typer.Exit(command.status(config, as_json))
