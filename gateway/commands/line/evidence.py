"""gateway evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.line.options import Config

app = typer.Typer()


@app.command()
def evidence(
    out: Annotated[Path | None, typer.Option(help="the folder for it", file_okay=False)] = None,
    patient: Annotated[
        str | None,
        typer.Option(metavar="ID", help="instead, what was done with this patient's data; - reads the id"),
    ] = None,
    kept: Annotated[
        bool, typer.Option("--kept", help="only what is the same in every hospital, as in deploy/evidence")
    ] = False,
    config: Config = None,
) -> None:
    """What a hospital asks before it signs.

    Of this release and this configuration: conformance, data flow, hazards, security.
    """
    from gateway.commands import evidence as command

    if patient is not None:
        raise typer.Exit(command.disclose(config, patient, out))
    if out is None:
        raise typer.BadParameter("--out names the folder, or --patient whose data are asked for")
    raise typer.Exit(command.write(config, out, kept))
