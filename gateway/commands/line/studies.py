"""gateway interesting, gateway explain, gateway reconcile."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.line.options import Config, Json, names_of

app = typer.Typer()


@app.command()
def interesting(
    job: Annotated[str, typer.Argument(metavar="JOB", help="its id, or the beginning of it")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a job's study to its vendor's people.

    Of a vendor that has a way for that, such as Milvue.
    """
    from gateway.commands import interesting as command

    raise typer.Exit(command.point_out(config, job, as_json))


@app.command()
def explain(
    application: Annotated[str, typer.Option(metavar="NAME", autocompletion=names_of("applications"))],
    study: Annotated[str | None, typer.Option(metavar="UID", help="a study")] = None,
    accession: Annotated[str | None, typer.Option(metavar="NUMBER", help="or its accession number")] = None,
    slide: Annotated[
        str | None, typer.Option(metavar="ID", help="or a slide, which our user in Sectra looks at")
    ] = None,
    show_deidentified: Annotated[
        bool, typer.Option(help="each attribute before and after, where the vendor may not know whose it is")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What would happen to a study or a slide; nothing is sent."""
    from gateway.commands import explain as command

    asked = study, accession, slide
    raise typer.Exit(command.explain(config, application, *asked, as_json, show_deidentified))


@app.command()
def reconcile(
    start: Annotated[bool, typer.Option("--start", help="begin them, as if they had just arrived")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Which studies an archive has that were never processed."""
    from gateway.commands import reconcile as command

    raise typer.Exit(command.reconcile(config, start, as_json))
