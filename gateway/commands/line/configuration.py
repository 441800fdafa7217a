"""gateway config."""

from __future__ import annotations

import typer

from gateway.commands.line.options import Config, Json

app = typer.Typer()
configuration = typer.Typer(help="What is configured, and what may be.", no_args_is_help=True)
app.add_typer(configuration, name="config")


@configuration.command("show")
def show_configuration(config: Config = None, as_json: Json = False) -> None:
    """What is in force, secrets masked."""
    from gateway.commands import configuration as command

    raise typer.Exit(command.show(config, as_json))


@configuration.command()
def reference() -> None:
    """Every key that there is, in Markdown."""
    from gateway.commands import configuration as command

    raise typer.Exit(command.print_reference())
