"""gateway replay, gateway compare, gateway trial."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.line.filters import filtered
from gateway.commands.line.options import Config, Json, moment, names_of

app = typer.Typer()


@app.command()
@filtered
def replay(
    filters: dict[str, Any],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What would become of jobs under another configuration.

    Each job since a time (--since) is decided again, by what is kept of it and what its archive has now;
    nothing is sent or changed. The database is the one that this configuration names (--config).
    """
    from gateway.commands import replay as command

    raise typer.Exit(command.replay(config, filters, as_json))


@app.command()
def compare(
    application: Annotated[str, typer.Option(metavar="NAME", autocompletion=names_of("applications"))],
    since: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="as in 2026-01-31T12:00")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """How far a vendor and its shadows agree, finding by finding."""
    from gateway.commands.compare import show

    raise typer.Exit(show(config, application, since, as_json))


@app.command()
def trial(
    application: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="whose studies they are like", autocompletion=names_of("applications")
        ),
    ],
    adapter: Annotated[
        str, typer.Option(metavar="NAME", help="the candidate", autocompletion=names_of("adapters"))
    ],
    studies: Annotated[Path, typer.Option(metavar="LIST.csv", help="studies, and what is true of them")],
    name: Annotated[str, typer.Option(metavar="TEXT", help="of another run of the same studies")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """How right a candidate is, by studies whose truth is known.

    They go to it, and nothing is delivered.

    The list is CSV with a line of column names. One names the study (study_instance_uid, or accession_number
    with patient_id where the number isn't enough); every other column is a finding as the vendor calls it,
    yes or no, or empty where nobody knows; truth means any finding at all. Columns modality, device, sex
    and age say so in place of the study's images.

    The studies are sent by the gateway that runs, where nobody waits for them. What ran isn't run again: the
    same command goes on after an interruption, and another name begins anew. Told are sensitivity and
    specificity with Wilson's 95 % intervals, overall and by modality, device, sex and age.
    """
    from gateway.commands.trial import run

    raise typer.Exit(run(config, application, adapter, studies, name, as_json))
