"""The command line. Each command's work is in `gateway/commands`, loaded when it is called."""

from __future__ import annotations

import signal
import sys

if sys.argv[1:2] == ["run"]:  # at once, before all else is loaded: it ends no gateway
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

import inspect
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.extras import Extra, is_installed, say_missing
from gateway.jobs.states import State

app = typer.Typer(
    help="The imaging AI gateway.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to lay help out in colours takes longer than all else that is asked
)
jobs = typer.Typer(help="Look at jobs and act on them.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
audit = typer.Typer(help="Who did what.", no_args_is_help=True)
app.add_typer(audit, name="audit")
configuration = typer.Typer(help="What is configured, and what may be.", no_args_is_help=True)
app.add_typer(configuration, name="config")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="gateway.yaml; else GATEWAY_CONFIG names it", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="for scripts")]


Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="their ids, or the beginnings of them")]
All = Annotated[bool, typer.Option("--all", help="all that the filters mean")]
Yes = Annotated[bool, typer.Option("--yes", help="without asking, which is done on a terminal only")]


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter("a date, or date and time, as in 2026-01-31T12:00") from None


def _one_of(kind: type[StrEnum]) -> dict[str, Any]:
    """For an argument or option that takes one of these."""

    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text} is none of {', '.join(kind)}") from None

    def begin_so(begun: str) -> list[str]:
        return [each.value for each in kind if each.value.startswith(begun)]

    return {"parser": parse, "autocompletion": begin_so}


def _names(kind: str) -> Callable[[str], list[str]]:
    """For the shell to complete."""

    def begin_so(begun: str) -> list[str]:
        from gateway.commands.completing import names

        return [name for name in names(kind) if name.startswith(begun)]

    return begin_so


_FILTERS = {
    "state": Annotated[
        list[State] | None,
        typer.Option(metavar="STATE", help="any of several, as with the others", **_one_of(State)),
    ],
    "accession_number": Annotated[list[str] | None, typer.Option("--accession", metavar="NUMBER")],
    "study_instance_uid": Annotated[list[str] | None, typer.Option("--study", metavar="UID")],
    "slide_id": Annotated[list[str] | None, typer.Option("--slide", metavar="ID")],
    "adapter": Annotated[list[str] | None, typer.Option(metavar="NAME", autocompletion=_names("adapters"))],
    "application": Annotated[
        list[str] | None, typer.Option(metavar="NAME", autocompletion=_names("applications"))
    ],
    "department": Annotated[
        list[str] | None, typer.Option(metavar="NAME", autocompletion=_names("departments"))
    ],
    "since": Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="as in 2026-01-31T12:00")
    ],
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


def _show_version(wanted: bool) -> None:
    if wanted:
        from gateway import __version__

        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="say which release it is")
    ] = False,
) -> None:
    del version


class Only(StrEnum):
    INTAKE = "intake"
    WORKERS = "workers"


class Simulated(StrEnum):
    SECTRA = "sectra"
    ARCHIVE = "archive"
    MILVUE = "milvue"
    IA_APP = "ia-app"


@app.command()
def run(
    config: Config = None,
    only: Annotated[
        Only | None, typer.Option(metavar="PART", help="intake or workers alone", **_one_of(Only))
    ] = None,
) -> None:
    """Run the gateway."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is to read the configuration again, once it runs
    from gateway.commands import daemon

    raise typer.Exit(daemon.run(config, only.value if only else None))


@app.command()
def check(
    config: Config = None,
    offline: Annotated[bool, typer.Option("--offline", help="the configuration only")] = False,
    alive: Annotated[
        bool, typer.Option("--alive", help="only whether the gateway that runs here says it is well")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the configuration, then each peer."""
    if alive:
        from gateway.commands.alive import alive as ask

        raise typer.Exit(ask(config))
    from gateway.commands import check as command

    raise typer.Exit(command.check(config, offline, as_json))


class Pausable(StrEnum):
    APPLICATION = "application"
    ADAPTER = "adapter"
    DESTINATION = "destination"


Kind = Annotated[
    Pausable,
    typer.Argument(metavar="KIND", **_one_of(Pausable)),
]


def _names_of_its_kind(context: typer.Context, begun: str) -> list[str]:
    return _names(f"{context.params.get('kind')}s")(begun)


PausedName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="as the configuration names it", autocompletion=_names_of_its_kind),
]


@app.command()
def pause(
    kind: Kind,
    name: PausedName,
    why: Annotated[str, typer.Option("--why", metavar="REASON", help="slides will say it")],
    config: Config = None,
) -> None:
    """Let its jobs wait, and say so on their slides.

    Work goes on being taken in.
    """
    from gateway.commands import pause as command

    raise typer.Exit(command.pause(config, kind.value, name, why))


@app.command()
def unpause(kind: Kind, name: PausedName, config: Config = None) -> None:
    """Let its jobs go on."""
    from gateway.commands import pause as command

    raise typer.Exit(command.pause(config, kind.value, name, None))


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
def migrate(config: Config = None) -> None:
    """Bring the database to this release's tables."""
    from gateway.commands import daemon

    raise typer.Exit(daemon.migrate(config))


@app.command()
def explain(
    application: Annotated[str, typer.Option(metavar="NAME", autocompletion=_names("applications"))],
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
    application: Annotated[str, typer.Option(metavar="NAME", autocompletion=_names("applications"))],
    since: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="as in 2026-01-31T12:00")
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
            metavar="NAME", help="whose studies they are like", autocompletion=_names("applications")
        ),
    ],
    adapter: Annotated[
        str, typer.Option(metavar="NAME", help="the candidate", autocompletion=_names("adapters"))
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


@app.command()
def reconcile(
    start: Annotated[bool, typer.Option("--start", help="begin them, as if they had just arrived")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Which studies an archive has that were never processed."""
    from gateway.commands import reconcile as command

    raise typer.Exit(command.reconcile(config, start, as_json))


def _require(*extras: Extra) -> None:
    """What the simulated hospital can't do without; it draws its patients."""
    if missing := [extra for extra in extras if not is_installed(extra)]:
        typer.echo(f"{' and '.join(map(say_missing, missing))}: the simulated hospital needs it", err=True)
        raise typer.Exit(1)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="keep it running")] = False,
) -> None:
    """A whole hospital on one machine."""
    _require("reports", "embedded")
    from gateway.commands import demo as command

    raise typer.Exit(command.demo(serve))


@app.command(context_settings={"help_option_names": []})
def simulate(
    context: typer.Context,
    peer: Annotated[
        Simulated | None,
        typer.Argument(metavar="PEER", show_default=False, **_one_of(Simulated)),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="0 takes a free one")] = 0,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="where it listens")] = "127.0.0.1",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="where others reach it, if not there")
    ] = None,
    asks: Annotated[
        bool, typer.Option("--help", help="this message; after milvue, all that it does and can be told")
    ] = False,
) -> None:
    """A simulated Sectra, archive, Milvue or IA-API app.

    It listens on loopback, unless told otherwise. Each can be looked at and disturbed from outside: GET
    /control/log, PUT /control/faults; and Sectra has /control/slides, /fire, /results, /firings and
    /settings, the archive /control/state and /manners, Milvue /control/state, /behaviour and
    /quota.
    """
    if asks:
        from gateway.commands import simulated

        typer.echo(simulated.describe("" if peer is None else peer.value) + context.get_help())
        raise typer.Exit
    if peer is None:
        raise typer.BadParameter(f"say which: {', '.join(Simulated)}", param_hint="PEER")
    _require("reports")
    from gateway.commands import simulate as command

    raise typer.Exit(command.simulate(peer.value, port, url, host))


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
        typer.Option(help="seals that left the database; else seals.log in data_dir", show_default=False),
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


@app.command()
def backup(
    out: Annotated[Path, typer.Option(help="the folder for it", file_okay=False)],
    keep: Annotated[int | None, typer.Option(min=1, help="how many to keep there, of all")] = None,
    config: Config = None,
) -> None:
    """The database as it is now; jobs may go on meanwhile. Keys are not part of it."""
    from gateway.commands import backup as command

    raise typer.Exit(command.backup(config, out, keep))


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


@app.command()
def key(
    seal: Annotated[bool, typer.Option("--seal", help="a new seal_key instead")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="what verifies the seals of this gateway; nothing is made")
    ] = False,
    fingerprints: Annotated[
        bool, typer.Option("--fingerprints", help="of secret_keys, as backups tell them; nothing is made")
    ] = False,
    config: Config = None,
) -> None:
    """A new key for secret_keys."""
    from gateway.commands import key as command

    if fingerprints:
        raise typer.Exit(command.show_fingerprints(config))
    raise typer.Exit(command.show_public(config) if public else command.make(seal))


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


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose it is, as the audit will say")],
    role: Annotated[Role, typer.Argument(metavar="ROLE", **_one_of(Role))],
) -> None:
    """A new token for api_tokens."""
    from gateway.commands import token as command

    raise typer.Exit(command.make(name, role.value))


@audit.command("list")
def list_acts(
    who: Annotated[list[str] | None, typer.Option(metavar="NAME")] = None,
    what: Annotated[
        list[str] | None, typer.Option(metavar="ACT", help="as in retry, pause, signed in")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="its id, or the beginning of it")] = None,
    since: Annotated[datetime | None, typer.Option(parser=_moment, metavar="TIME")] = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, metavar="N")] = 50,
    as_json: Json = False,
) -> None:
    """The newest first."""
    from gateway.commands import audit as command

    raise typer.Exit(command.list_acts(config, who or [], what or [], job, since, limit, as_json))


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


def main() -> None:
    app()


if __name__ == "__main__":
    main()
