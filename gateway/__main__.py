"""The command line. Each command's work is in `gateway/commands`, loaded when it is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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
    study: Annotated[str, typer.Option(help="a study instance UID")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What would happen to a study, and why; nothing is sent."""
    from gateway.commands import explain as command

    raise typer.Exit(command.explain(config, application, study, as_json))


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
def list_jobs(
    config: Config = None,
    state: Annotated[State | None, typer.Option()] = None,
    department: Annotated[str | None, typer.Option()] = None,
    application: Annotated[str | None, typer.Option()] = None,
    study: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Json = False,
) -> None:
    """The newest first."""
    from gateway.commands import jobs as command

    filters: dict[str, Any] = {"state": state, "department": department, "application": application}
    raise typer.Exit(command.list_jobs(config, {**filters, "study_instance_uid": study}, limit, as_json))


@jobs.command()
def show(job: str, config: Config = None, as_json: Json = False) -> None:
    """A job with its history, deliveries and proof."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.show(config, job, as_json))


@jobs.command()
def retry(job: str, config: Config = None, as_json: Json = False) -> None:
    """At once, or again from the beginning what had ended."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.act(config, "retry", job, as_json))


@jobs.command()
def cancel(job: str, config: Config = None, as_json: Json = False) -> None:
    """Stop a job, also one that waits."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.act(config, "cancel", job, as_json))


@jobs.command()
def resume(
    job: str,
    config: Config = None,
    study: Annotated[str | None, typer.Option(help="which of several that match")] = None,
    as_json: Json = False,
) -> None:
    """Let a held job go on where it was held."""
    from gateway.commands import jobs as command

    raise typer.Exit(command.act(config, "resume", job, as_json, study))


@jobs.command()
def export(
    config: Config = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="check all histories: 0 intact, 1 tampered")
    ] = False,
    state: Annotated[State | None, typer.Option()] = None,
    department: Annotated[str | None, typer.Option()] = None,
    application: Annotated[str | None, typer.Option()] = None,
    study: Annotated[str | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Jobs with their histories, a JSON object a line."""
    from gateway.commands import jobs as command

    filters: dict[str, Any] = {"state": state, "department": department, "application": application}
    raise typer.Exit(command.export(config, {**filters, "study_instance_uid": study}, verify, as_json))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
