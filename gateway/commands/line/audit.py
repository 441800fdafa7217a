"""gateway audit."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from gateway.commands.line.options import Config, Json, moment

app = typer.Typer()
audit = typer.Typer(help="Who did what.", no_args_is_help=True)
app.add_typer(audit, name="audit")


@audit.command("list")
def list_acts(
    who: Annotated[list[str] | None, typer.Option(metavar="NAME")] = None,
    what: Annotated[
        list[str] | None, typer.Option(metavar="ACT", help="as in retry, pause, signed in")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="its id, or the beginning of it")] = None,
    since: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME")] = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, metavar="N")] = 50,
    as_json: Json = False,
) -> None:
    """The newest first."""
    from gateway.commands import audit as command

    raise typer.Exit(command.list_acts(config, who or [], what or [], job, since, limit, as_json))
