"""gateway jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.commands.line.filters import filtered
from gateway.commands.line.options import Config, Json

app = typer.Typer()
jobs = typer.Typer(help="Look at jobs and act on them.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="their ids, or the beginnings of them")]
All = Annotated[bool, typer.Option("--all", help="all that the filters mean")]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="with --all, without asking. Where nobody can be asked, what a filter means is done anyhow;"
        " --all without a filter needs this there.",
    ),
]


@jobs.command("list")
@filtered
def list_jobs(
    filters: dict[str, Any],
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, metavar="N")] = 50,
    as_json: Json = False,
) -> None:
    """The newest first."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.list_jobs(config, filters, limit, as_json))


@jobs.command()
@filtered
def watch(
    filters: dict[str, Any],
    config: Config = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="of the newest, on a terminal")
    ] = 20,
) -> None:
    """What happens to them, as it happens; until Ctrl-C."""
    from gateway.commands import watching as command

    raise typer.Exit(command.watch(config, filters, limit))


@jobs.command()
def show(
    job: Annotated[str, typer.Argument(metavar="ID", help="or the beginning of it")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """A job with its history, deliveries and proof."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.show(config, job, as_json))


def _add_act(what: Literal["retry", "cancel", "resume"], does: str) -> None:
    @jobs.command(what, help=does)
    @filtered
    def act(
        filters: dict[str, Any],
        job_ids: Ids = None,
        config: Config = None,
        everything: All = False,
        yes: Yes = False,
        as_json: Json = False,
    ) -> None:
        from gateway.commands import jobs as command

        raise typer.Exit(command.act(config, what, job_ids or [], filters, everything, yes, as_json))


_add_act("retry", "At once, or from the beginning; what is done, as a new job.")
_add_act("cancel", "Stop jobs, also those that wait.")
_add_act(
    "resume",
    "Let held jobs go on where they were held. With one id, --study says which of several that match.",
)


@jobs.command()
@filtered
def export(
    filters: dict[str, Any],
    config: Config = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="check all histories: 0 intact, 1 tampered, 3 it couldn't be checked"),
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="seals that left the database, in a file of them or in the log; else seals.log in data_dir",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="public keys besides our own, as gateway key --public prints them", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Jobs with their histories, a JSON object a line."""
    from gateway.commands import export as command

    if verify:
        raise typer.Exit(command.verify(config, against or [], key or [], as_json))
    if against or key:
        raise typer.BadParameter("--against and --key go with --verify")
    raise typer.Exit(command.export(config, filters))
