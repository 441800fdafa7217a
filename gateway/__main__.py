"""The command line. Each command's work is in `gateway/commands`, loaded when it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.jobs.states import State

app = typer.Typer(
    help="The imaging AI gateway.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
jobs = typer.Typer(help="Look at jobs and act on them.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="gateway.yaml; else GATEWAY_CONFIG names it", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="for scripts")]


Ids = Annotated[list[str] | None, typer.Argument(help="their ids, or the beginnings of them")]
All = Annotated[bool, typer.Option("--all", help="all that the filters mean")]


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter("a date, or date and time, as in 2026-01-31T12:00") from None


_FILTERS = {
    "state": Annotated[list[State] | None, typer.Option(help="any of several, as with the others")],
    "accession_number": Annotated[list[str] | None, typer.Option("--accession")],
    "study_instance_uid": Annotated[list[str] | None, typer.Option("--study")],
    "slide_id": Annotated[list[str] | None, typer.Option("--slide")],
    "adapter": Annotated[list[str] | None, typer.Option()],
    "application": Annotated[list[str] | None, typer.Option()],
    "department": Annotated[list[str] | None, typer.Option()],
    "since": Annotated[datetime | None, typer.Option(parser=_moment, metavar="TIME")],
}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say which jobs are meant; it gets them as one argument, `filters`."""

    @wraps(command)
    def with_filters(**given: Any) -> None:
        command({name: given.pop(name) for name in _FILTERS}, **given)

    own = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FILTERS.items()
    ]
    parameters = [parameter for name, parameter in own.parameters.items() if name != "filters"]
    with_filters.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    return with_filters


class Only(StrEnum):
    INTAKE = "intake"
    WORKERS = "workers"


class Simulated(StrEnum):
    SECTRA = "sectra"
    ARCHIVE = "archive"
    MILVUE = "milvue"


@app.command()
def run(
    config: Config = None, only: Annotated[Only | None, typer.Option(help="a part of it")] = None
) -> None:
    """Run the gateway."""
    from gateway.commands import daemon

    raise typer.Exit(daemon.run(config, only.value if only else None))


@app.command()
def check(
    config: Config = None,
    offline: Annotated[bool, typer.Option("--offline", help="the configuration only")] = False,
    as_json: Json = False,
) -> None:
    """Check the configuration, then each peer."""
    from gateway.commands import check as command

    raise typer.Exit(command.check(config, offline, as_json))


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to this release's tables."""
    from gateway.commands import daemon

    raise typer.Exit(daemon.migrate(config))


@app.command()
def explain(
    application: Annotated[str, typer.Option()],
    study: Annotated[str | None, typer.Option(help="a study instance UID")] = None,
    accession: Annotated[str | None, typer.Option(help="or an accession number")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What would happen to a study, and why; nothing is sent."""
    from gateway.commands import explain as command

    raise typer.Exit(command.explain(config, application, study, accession, as_json))


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="keep it running")] = False,
) -> None:
    """A whole hospital on one machine."""
    from gateway.commands import demo as command

    raise typer.Exit(command.demo(serve))


@app.command()
def simulate(peer: Simulated, port: Annotated[int, typer.Option(help="0 takes a free one")] = 0) -> None:
    """A simulated Sectra, archive or Milvue on loopback."""
    from gateway.commands import simulate as command

    raise typer.Exit(command.simulate(peer.value, port))


@jobs.command("list")
@filtered
def list_jobs(
    filters: dict[str, Any],
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Json = False,
) -> None:
    """The newest first."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.list_jobs(config, filters, limit, as_json))


@jobs.command()
def show(job: str, config: Config = None, as_json: Json = False) -> None:
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
        as_json: Json = False,
    ) -> None:
        from gateway.commands import jobs as command

        raise typer.Exit(command.act(config, what, job_ids or [], filters, everything, as_json))


_add_act("retry", "At once, or again from the beginning what had ended.")
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
        bool, typer.Option("--verify", help="check all histories: 0 intact, 1 tampered")
    ] = False,
    as_json: Json = False,
) -> None:
    """Jobs with their histories, a JSON object a line."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.export(config, filters, verify, as_json))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
