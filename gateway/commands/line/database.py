"""gateway migrate, gateway backup, gateway restore, gateway move-database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.line.options import Config

app = typer.Typer()


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to this release's tables."""
    from gateway.commands import daemon

    raise typer.Exit(daemon.migrate(config))


@app.command()
def backup(
    out: Annotated[Path, typer.Option(help="the folder for it", file_okay=False)],
    keep: Annotated[int | None, typer.Option(min=1, help="how many to keep there, of all")] = None,
    recovered: Annotated[
        bool, typer.Option("--recovered", help="PostgreSQL was brought back to an earlier moment: as of then")
    ] = False,
    config: Config = None,
) -> None:
    """The database as it is now; jobs may go on meanwhile. Keys are not part of it."""
    from gateway.commands import backup as command

    raise typer.Exit(command.backup(config, out, keep, recovered))


@app.command()
def restore(
    told: Annotated[Path, typer.Argument(metavar="BACKUP", help="its .json, .dump and .seals side by side")],
    config: Config = None,
) -> None:
    """A backup into an empty database.

    It is verified first, and nothing that was sent since is sent again.
    """
    from gateway.commands import backup as command

    raise typer.Exit(command.restore(config, told))


@app.command("move-database")
def move_database(
    to: Annotated[
        Path, typer.Argument(metavar="NEW_CONFIG", help="its database_url names an empty database")
    ],
    config: Config = None,
) -> None:
    """From the embedded database to a server, or between servers.

    The gateway has to be stopped.
    """
    from gateway.commands import backup as command

    raise typer.Exit(command.move(config, to))
