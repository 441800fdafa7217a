"""gateway audit, config, token, jobs watch: what IT looks at, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
import yaml
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.__main__ import app
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings import reference
from gateway.settings.load import load
from tests.db.crew import ask_for, bring

Command = Callable[..., Any]
TRAUMA = {"display_name": "Trauma", "adapter": "milvue", "archives": ["vna"]}


@pytest.fixture
def environment(database_url: str, secret_key: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "hook").write_text("https://chat.hospital/secret-of-the-hook")
    path = tmp_path / "gateway.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "secret_keys": [secret_key],
                "data_dir": str(tmp_path),
                "api_tokens": [{"name": "ops", "role": "operator", "sha256": "0123456789" * 6 + "abcd"}],
                "adapters": {"milvue": {"kind": "milvue", "url": "https://m", "token": "secret-of-milvue"}},
                "archives": {"vna": {"kind": "dicomweb", "url": "https://vna"}},
                "destinations": {"ris": {"kind": "hl7", "host": "ris", "port": 2575}},
                "departments": {"emergency": {"applications": {"trauma": TRAUMA}}},
                "alerts": {"webhook": {"url": f"${{file:{tmp_path / 'hook'}}}"}},
            }
        )
    )
    return {"GATEWAY_CONFIG": str(path), "GATEWAY_DATABASE_URL": f"{database_url}"}


@pytest.fixture
def command(environment: dict[str, str]) -> Iterator[Command]:
    async def run(*arguments: str, input: str | None = None) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment, input=input)

    yield run
    structlog.reset_defaults()


async def test_who_did_what_is_listed(store: Store, command: Command) -> None:
    first, _ = await store.create(ask_for())
    second, _ = await store.create(ask_for())
    await store.cancel(first.id, "ops")
    await store.cancel(second.id, "night")
    await store.pause("adapters.milvue", "maintenance", "ops")

    async def told(*filters: str) -> list[tuple[str, str]]:
        result = await command("audit", "list", "--json", *filters)
        assert result.exit_code == 0, result.output
        return [(act["who"], act["what"]) for act in json.loads(result.stdout)]

    assert await told("--what", "cancel") == [("night", "cancel"), ("ops", "cancel")]
    assert await told("--job", str(first.id)[:13]) == [("ops", "cancel")]
    assert ("night", "cancel") not in await told("--who", "ops")
    assert await told("--since", "2999-01-01") == []
    assert await told("--limit", "1") == (await told())[:1]
    shown = await command("audit", "list")
    assert "maintenance" in shown.stdout and "configuration: " in shown.stderr


async def test_what_is_configured_is_shown_without_its_secrets(
    store: Store, command: Command, environment: dict[str, str]
) -> None:
    settings = load(Path(environment["GATEWAY_CONFIG"]), environment)
    shown = await command("config", "show")
    assert shown.exit_code == 0, shown.output
    assert "no gateway has told" in shown.stdout and settings.revision in shown.stdout
    await store.note_revision(settings.revision, settings.text, "here", "start")
    await store.note_revision(settings.revision, settings.text, "there", "start")
    await store.note_revision("another", "", "there", "changed", ["line 3: departments: no"])
    shown = await command("config", "show")
    assert "in force since" in shown.stdout and "line 3: departments: no" in shown.stdout
    told = json.loads((await command("config", "show", "--json")).stdout)
    assert (told["in_force"]["revision"], told["in_force"]["who"]) == (settings.revision, "here")
    assert told["refused"] == ["line 3: departments: no"]
    for text in (shown.output, json.dumps(told), settings.text):
        assert "url: https://m" in text
        for secret in ("secret-of", "0123456789" * 2, settings.secret_keys[0].get_secret_value()):
            assert secret not in text
    assert len(await store.revisions()) == 2


@pytest.mark.parametrize("broken", ["log: {level: loud}\n", "departments: [\n"])
async def test_what_is_in_force_is_shown_though_the_file_is_no_good(
    store: Store, command: Command, environment: dict[str, str], broken: str
) -> None:
    path = Path(environment["GATEWAY_CONFIG"])
    await store.note_revision("abc", "data_dir: before", "here", "start")
    environment["GATEWAY_LEAST_FREE"] = "none"  # nor is this any good
    path.write_text(f"{path.read_text()}{broken}database_url: {environment.pop('GATEWAY_DATABASE_URL')}\n")
    shown = await command("config", "show")
    assert shown.exit_code == 1
    assert f"{path} line" in shown.stderr and "data_dir: before" not in shown.stderr
    assert shown.stdout.startswith("data_dir: before\n\n# revision abc\n") and "(here: start)" in shown.stdout
    told = json.loads((await command("config", "show", "--json")).stdout)
    assert told["in_force"]["revision"] == told["revision"] == "abc"
    assert f"{path} line" in told["refused"][-1]
    path.write_text(f"data_dir: {path.parent / 'none'}\n{broken}")
    shown = await command("config", "show")
    assert shown.exit_code == 1 and "what is in force isn't known: there is no database" in shown.stderr


async def test_jobs_and_audit_are_looked_at_though_the_file_is_no_good_but_nothing_is_done(
    store: Store, command: Command, environment: dict[str, str]
) -> None:
    job, _ = await store.create(ask_for())
    path = Path(environment["GATEWAY_CONFIG"])
    path.write_text(f"{path.read_text()}archives: [\n")
    for arguments in (("jobs", "list"), ("jobs", "show", str(job.id)), ("audit", "list", "--json")):
        shown = await command(*arguments)
        assert shown.exit_code == 1 and f"{path} line" in shown.stderr
        assert "is from the database that it names" in shown.stderr
        assert str(job.id) in shown.stdout or "audit" in arguments
    for acting in (["jobs", "cancel", str(job.id)], ["pause", "adapter", "milvue", "--why", "they move"]):
        refused = await command(*acting)
        assert refused.exit_code == 1 and "nothing was done: mend the configuration first" in refused.stderr
    seen = await store.get(job.id)
    assert seen is not None and seen.state == State.RECEIVED and not await store.pauses()
    environment.pop("GATEWAY_DATABASE_URL")
    path.write_text("archives: [\n")
    shown = await command("jobs", "list")
    assert shown.exit_code == 1 and "database" not in shown.stderr, "nothing says where one is"


async def test_what_is_paused_is_told_with_the_command_that_lets_it_go_on(
    store: Store, command: Command, environment: dict[str, str]
) -> None:
    nothing = await command("status")
    assert (nothing.exit_code, nothing.stdout) == (0, "all is well: there is nothing to do\n")
    assert "no process of the gateway gives a sign of life" in nothing.stderr
    for kind, name in (("application", "trauma"), ("adapter", "milvue"), ("destination", "ris")):
        paused = await command("pause", kind, name, "--why", "they move")
        assert paused.stdout.startswith(f"{name} is paused; gateway unpause {kind} "), paused.output
    job, _ = await store.create(ask_for(application="trauma", adapter="milvue"))
    async with await psycopg.AsyncConnection.connect(environment["GATEWAY_DATABASE_URL"]) as connection:
        await connection.execute(
            "UPDATE jobs SET waits_for = 'adapters.milvue', waits_why = 'they move', next_at = NULL"
        )
    shown = (await command("jobs", "show", str(job.id))).stdout
    assert "  what lets it go on: gateway unpause adapter milvue\n" in shown
    told = json.loads((await command("status", "--json")).stdout)
    assert [each["jobs"] for each in told["causes"] if each["command"].endswith("milvue")] == [1]
    written = (await command("status")).stdout
    assert "They move." in written
    for cause in told["causes"]:
        assert cause["command"] in written.replace("\n    ", "\n").splitlines()
        gateway, *arguments = shlex.split(cause["command"])
        done = await command(*arguments)
        assert (gateway, done.exit_code) == ("gateway", 0) and "goes on" in done.stdout, done.output
    assert await store.pauses() == []
    assert "all is well" in (await command("status")).stdout


async def test_a_name_that_nothing_is_configured_by_is_told_where_no_job_has_it(
    store: Store, command: Command
) -> None:
    job, _ = await store.create(ask_for(application="former"))
    misspelt = "there is no application truama; known: trauma; did you mean trauma?"
    shown = await command("jobs", "list", "--application", "truama")
    assert shown.exit_code == 0 and misspelt in shown.stderr
    shown = await command("jobs", "retry", "--adapter", "milvu", "--all", "--yes")
    assert "0 jobs to retry" in shown.stderr and "did you mean milvue?" in shown.stderr
    shown = await command("jobs", "list", "--application", "former")
    assert str(job.id) in shown.stdout and "there is no application" not in shown.stderr
    shown = await command("pause", "adapter", "Milvu", "--why", "they move")
    assert shown.exit_code == 1 and "there are: milvue; did you mean milvue?" in shown.stderr


async def test_a_job_tells_under_which_configuration_it_ran(store: Store, command: Command) -> None:
    store.revision = "abc"
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.LOCATING)
    store.revision = "def"
    await store.move(at, to=State.SUBMITTING)
    shown = json.loads((await command("jobs", "show", str(job.id), "--json")).stdout)
    assert (at.revision, shown["revision"]) == ("abc", "def")


def test_every_key_stands_in_the_reference() -> None:
    told = CliRunner().invoke(app, ["config", "reference"]).stdout
    for key in (
        "departments.NAME.applications.NAME.retry.first",
        "listen.tls.client_ca",
        "api_tokens[].role",
    ):
        assert f"| `{key}` |" in told
    assert "| `departments.NAME.applications.NAME.settle` | duration" in told and "| `10s` |" in told
    for row in (
        "alerts.remind` | duration (500ms, 5s, 10m, 24h, 1d) | `4h` | `4h`",
        "reconcile[].since` | duration (500ms, 5s, 10m, 24h, 1d) | `26h` | `26h`",
        "adapters.NAME.canary.every` | duration (500ms, 5s, 10m, 24h, 1d) | must be set | `10m`",
        "departments.NAME.applications.NAME.expect.within` | duration",
        "departments.NAME.applications.NAME.expect.days` | days of the week | `mon-sun` | `mon-sun`",
    ):
        assert f"| `{row}" in told
    assert "frozenset" not in told
    assert len(reference.keys()) > 120


def test_the_options_of_each_kind_of_adapter_stand_in_the_reference() -> None:
    of_kinds = reference.write().split("\n## ")[1:]
    adapters = {point.name: point.load().Options for point in entry_points(group="gateway.adapters")}
    assert {part.partition("\n")[0] for part in of_kinds} == {
        f"The options of `kind: {kind}`" for kind in adapters
    }
    for kind, options in adapters.items():
        [told] = [part for part in of_kinds if part.startswith(f"The options of `kind: {kind}`")]
        for name, field in options.model_fields.items():
            assert f"| `adapters.NAME.{field.alias or name}" in told


async def test_a_token_and_what_the_configuration_keeps_of_it(command: Command) -> None:
    made = await command("token", "ops", "operator")
    assert hashlib.sha256(made.stdout.strip().encode()).hexdigest() in made.stderr
    assert (await command("token", "no name", "operator")).exit_code == 2
    assert (await command("--version")).stdout == f"gateway {__version__}\n"


def _drain(terminal: int) -> None:
    """Nobody draws on a terminal that nobody reads from; it ends with the last who could write."""
    with suppress(OSError):
        while os.read(terminal, 65536):
            pass


@pytest.mark.parametrize("group", [[], ["jobs"], ["audit"], ["config"]])
def test_help_fits_a_terminal_and_cuts_no_sentence(group: list[str]) -> None:
    told = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    lines = told.splitlines()
    assert lines and max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith("...") and "[ARGS]..." not in line] == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["jobs", "list", "--state", "lost"], "lost is none of received, locating"),
        (["jobs", "list", "--since", "yesterday"], "a date, or date and time"),
        (["run", "--only", "half"], "half is none of intake, workers"),
        (["pause", "vendor", "x", "--why", "y"], "vendor is none of application, adapter, destination"),
        (["pause", "adapter", "milvue"], "--why"),
        (["token", "ops", "god"], "god is none of viewer, operator, admin"),
        (["simulate", "nobody"], "nobody is none of sectra"),
        (["jobs", "cancel"], "name jobs by their ids"),
        (["explain", "--application", "a"], "--study"),
        (["replay"], "--since"),
        (["nonsense"], "nonsense"),
        (["jbos"], "No such command 'jbos'. Did you mean 'jobs'?"),
        (["jobs", "list", "--state", "hled"], "held; did you mean held?"),
    ],
)
async def test_wrong_use_is_told_in_a_sentence(command: Command, wrong: list[str], sentence: str) -> None:
    told = await command(*wrong)
    assert told.exit_code == 2 and sentence in " ".join(told.output.split()), told.output


@pytest.mark.parametrize(
    ("begun", "ends"),
    [
        ("gateway rep", "replay"),
        ("gateway comp", "compare"),
        ("gateway tri", "trial"),
        ("gateway compare --application tr", "trauma"),
        ("gateway trial --application ", "trauma"),
        ("gateway trial --adapter m", "milvue"),
        ("gateway trial --application trauma --stu", "--studies"),
        ("gateway jobs list --state h", "held"),
        ("gateway jobs list --adapter ", "milvue"),
        ("gateway pause ad", "adapter"),
        ("gateway pause adapter m", "milvue"),
    ],
)
def test_the_shell_completes_it(environment: dict[str, str], begun: str, ends: str) -> None:
    asked = {"COMP_WORDS": begun, "COMP_CWORD": str(begun.count(" ")), "_GATEWAY_COMPLETE": "complete_bash"}
    told = CliRunner().invoke(app, [], env=environment | asked, prog_name="gateway")
    assert told.stdout.split() == [ends]


async def test_nothing_found_is_said(store: Store, command: Command) -> None:
    await store.ping()
    empty = await command("jobs", "list")
    assert empty.exit_code == 0 and "there are no jobs yet" in empty.stderr
    await store.create(ask_for())
    assert "no jobs match" in (await command("jobs", "list", "--state", "held")).stderr
    assert "nobody did anything that matches" in (await command("audit", "list", "--who", "me")).stderr
    assert (await command("jobs", "list", "--state", "held", "--json")).stdout == "[]\n"


async def test_a_job_is_shown_within_the_terminal(store: Store, environment: dict[str, str]) -> None:
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.LOCATING)
    long = "the archive vna can't be reached " * 5
    await store.move(at, what="waiting", detail={"message": long, "advice": long}, waits_why=long)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "jobs", "show", str(job.id)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        env={**os.environ, **environment, "COLUMNS": "80", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):
        while told := await asyncio.to_thread(os.read, ours, 65536):
            shown += told
    os.close(ours)
    assert await process.wait() == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 80 and "can't be reached" in shown.decode()


async def test_what_happens_is_watched(store: Store, environment: dict[str, str]) -> None:
    job, _ = await store.create(ask_for(application="a-rather-long-name-of-an-application"))

    async def start(out: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT", sys.executable, "-m", "gateway", "jobs", "watch"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            env={**os.environ, **environment, "COLUMNS": "80", "TERM": "xterm"},
        )

    ours, theirs = pty.openpty()
    on_terminal, plain = await start(theirs), await start(asyncio.subprocess.PIPE)
    seen = ""
    async with asyncio.timeout(200):
        while str(job.id)[:8] not in seen:
            seen += (await asyncio.to_thread(os.read, ours, 65536)).decode()
        drained = asyncio.create_task(asyncio.to_thread(_drain, ours))
        assert plain.stdout is not None
        reading = asyncio.create_task(plain.stdout.readline())
        while not reading.done():  # until it has begun to listen
            await store.create(ask_for())
            await asyncio.wait([reading], timeout=0.5)
        assert b"accepted" in await reading
    for process in (on_terminal, plain):
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    os.close(theirs)
    await drained
    os.close(ours)
