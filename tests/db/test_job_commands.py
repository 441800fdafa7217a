"""gateway jobs, as one uses it who is asked: where is my result?"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import structlog
from cryptography.fernet import Fernet
from typer.main import get_command
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from gateway.commands.interesting import point_out
from gateway.embedded import server as embedded
from gateway.jobs.records import Job
from gateway.jobs.signing import SealKey
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.acts import ActFilter
from gateway.jobs.store.reading import Filter
from gateway.settings.sections import Settings
from gateway.work.sealing import Sealing
from tests.db.crew import ask_for, bring, until

Command = Callable[..., Any]


@pytest.fixture
def command(database_url: str, secret_key: str, tmp_path: Path) -> Iterator[Command]:
    settings = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_SECRET_KEYS": f'["{secret_key}"]',
        "GATEWAY_DATA_DIR": str(tmp_path),
    }

    async def run(*arguments: str, piped: str = "") -> Result:
        ask = CliRunner().invoke
        return await asyncio.to_thread(ask, app, ["jobs", *arguments], env=settings, input=piped)

    yield run
    structlog.reset_defaults()  # the command wrote its log where nothing can be written any more


async def held(store: Store, **asked: Any) -> Job:
    job, _ = await store.create(ask_for(**asked))
    at = await bring(store, job, State.LOCATING)
    return await store.move(at, to=State.HELD, after=None, held_in=State.LOCATING.value)


def listed(result: Result) -> set[str]:
    assert result.exit_code == 0, result.output
    return {job["id"] for job in json.loads(result.stdout)}


async def test_an_accession_number_is_enough_to_find_a_job(store: Store, command: Command) -> None:
    wanted = await held(store, accession_number="A1", slide_id="s1")
    other, _ = await store.create(ask_for(accession_number="A2", application="b", adapter="another"))
    third, _ = await store.create(ask_for(accession_number="A3", department="d2"))
    ids = [str(job.id) for job in (wanted, other, third)]
    for filters, found in (
        (["--accession", "A1"], ids[:1]),
        (["--accession", "A1", "--accession", "A2"], ids[:2]),
        (["--state", "held", "--state", "received", "--adapter", "another"], ids[1:2]),
        (["--slide", "s1", "--application", "b"], []),
        (["--department", "d2"], ids[2:]),
        (["--since", f"{wanted.created_at.isoformat()}"], ids),
        (["--since", "2999-12-31"], []),
    ):
        assert listed(await command("list", "--json", *filters)) == set(found), filters
    shown = await command("show", str(wanted.id))
    assert "accession number A1" in shown.stdout and "slide s1" in shown.stdout


async def test_a_wrong_time_is_wrong_use(command: Command) -> None:
    assert (await command("list", "--since", "yesterday")).exit_code == 2


@pytest.mark.parametrize("what", ["resume", "retry", "cancel"])
async def test_nothing_is_changed_by_a_digit_or_three_of_an_id(
    what: str, store: Store, command: Command
) -> None:
    job = await held(store)
    for short in (str(job.id)[0], str(job.id)[:3]):
        assert (await command("show", short)).exit_code == 0
        refused = await command(what, short)
        assert refused.exit_code == 2 and "give 4 digits or more" in refused.stderr, refused.output
    assert [each.state for each in await store.find(Filter())] == [State.HELD]
    assert point_out(None, str(job.id)[:3], as_json=False) == 2
    assert (await command(what, str(job.id)[:4])).exit_code == 0


async def test_the_vendors_reference_is_shown(store: Store, command: Command) -> None:
    job, _ = await store.create(ask_for(study_instance_uid="1.2.3"))
    at = await bring(store, job, State.SUBMITTING)
    ticket: dict[str, Any] = {"reference": "ORDER-7", "acknowledged": None, "state": {}}
    await store.move(at, to=State.ANALYSING, ticket=ticket)
    shown = await command("show", str(job.id))
    assert "study 1.2.3" in shown.stdout and "reference ORDER-7" in shown.stdout
    assert json.loads((await command("show", str(job.id), "--json")).stdout)["vendor_reference"] == "ORDER-7"


async def test_an_id_may_be_shortened_where_it_is_clear(store: Store, command: Command) -> None:
    ids = [str((await store.create(ask_for()))[0].id) for _ in range(20)]
    first = ids[0]
    clear = next(n for n in range(1, 33) if sum(each.startswith(first[:n]) for each in ids) == 1)
    for short in (first, first[: max(clear, 10)], first.replace("-", ""), first.upper()):
        assert f"job {first}" in (await command("show", short)).stdout, short
    shared = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    unclear = await command("show", shared)
    assert unclear.exit_code == 1 and "several jobs begin with" in unclear.stderr
    for nonsense in ("none", "", "0" * 33, "%"):
        assert (await command("show", nonsense)).exit_code == 1


async def test_several_are_acted_on_and_who_refuses_is_named(store: Store, command: Command) -> None:
    first, second = await held(store), await held(store)
    waiting, _ = await store.create(ask_for())
    result = await command("resume", str(first.id), str(waiting.id), str(second.id))
    assert result.exit_code == 1
    assert f"{waiting.id}: the job is received" in result.stderr
    for job in (first, second):
        assert f"{job.id}  locating" in result.stdout
        now = await store.get(job.id)
        assert now is not None and now.state == State.LOCATING


async def test_all_of_a_filter_after_saying_how_many(store: Store, command: Command) -> None:
    jobs = [await held(store, adapter="away") for _ in range(3)]
    other = await held(store, adapter="another")
    asked = await command("resume", "--adapter", "away")
    assert asked.exit_code == 2 and "3 jobs to resume" in asked.stderr and "--all" in asked.stderr
    done = await command("resume", "--adapter", "away", "--all", "--json")
    assert done.exit_code == 0 and "3 jobs to resume" in done.stderr
    assert {json.loads(line)["id"] for line in done.stdout.splitlines()} == {str(job.id) for job in jobs}
    told = [dict(event.detail) for event in await store.events_of(jobs[0].id)][-1]
    assert told["one_of"] == 3 and told["by"].startswith("command line (")
    still = await store.get(other.id)
    assert still is not None and still.state == State.HELD
    for wrong in ([], [str(other.id), "--all"], [str(other.id), "--adapter", "away"]):
        assert (await command("cancel", *wrong)).exit_code == 2, wrong


async def states_of(store: Store) -> set[str]:
    return {job.state for job in await store.find(Filter())}


def acts_on_many() -> list[str]:
    """Every command of the gateway that takes --all, also such as come later."""
    found: list[tuple[str, ...]] = []

    def look(command: Any, path: tuple[str, ...]) -> None:
        for name, below in getattr(command, "commands", {}).items():
            look(below, (*path, name))
        if any("--all" in parameter.opts for parameter in command.params):
            found.append(path)

    look(get_command(app), ())
    assert {path[0] for path in found} == {"jobs"}
    return [" ".join(path[1:]) for path in found]


def test_all_that_act_on_many_jobs_are_known() -> None:
    assert acts_on_many() == ["retry", "cancel", "resume"]


@pytest.mark.parametrize("what", acts_on_many())
async def test_whatever_there_is_isnt_acted_on_unasked_where_nobody_can_be_asked(
    what: str, store: Store, command: Command
) -> None:
    for _ in range(2):
        await held(store)
    before = {job.id: (job.state, job.updated_at) for job in await store.find(Filter())}
    refused = await command(what, "--all")
    assert refused.exit_code == 2, refused.output
    assert f"2 jobs to {what}" in refused.stderr
    assert f"nothing was done: that is every job of all departments that there is to {what}" in refused.stderr
    assert {job.id: (job.state, job.updated_at) for job in await store.find(Filter())} == before
    assert not [act for act in await store.find_acts(ActFilter()) if act.what == what]
    done = await command(what, "--all", "--yes")
    assert done.exit_code == 0, done.output
    assert State.HELD not in await states_of(store)


async def test_an_answer_that_is_piped_in_is_heard(store: Store, command: Command) -> None:
    job = await held(store)
    for filters in ([], ["--department", job.department]):
        for said, code in (("n\n", 1), ("No", 1), ("1.2.3\n", 2)):
            refused = await command("cancel", "--all", *filters, piped=said)
            assert refused.exit_code == code and "nothing was done" in refused.stderr, refused.output
            assert "1.2.3" not in refused.output
    assert await states_of(store) == {State.HELD}
    assert (await command("cancel", "--all", piped="y\n")).exit_code == 0
    assert await states_of(store) == {State.CANCELLED}


async def test_a_pipe_that_only_stays_open_is_no_answer(
    store: Store, database_url: str, secret_key: str, tmp_path: Path
) -> None:
    job = await held(store)
    settings = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_SECRET_KEYS": f'["{secret_key}"]',
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    for filters, code, state in (
        ([], 2, State.HELD),
        (["--department", job.department], 0, State.CANCELLED),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "jobs", "cancel", "--all", *filters),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | settings,
        )
        try:
            async with asyncio.timeout(100):
                assert await process.wait() == code
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert await states_of(store) == {state}


async def test_a_new_analysis_of_what_is_done_is_said_before_it_is_begun(
    store: Store, command: Command
) -> None:
    job, _ = await store.create(ask_for(study_instance_uid="1.2.3"))
    await store.move(await bring(store, job, State.DELIVERING), to=State.DONE, after=None)
    again = await command("retry", str(job.id))
    assert again.exit_code == 0, again.output
    assert f"job {job.id} is done: a new analysis of the same is begun" in again.stderr
    assert len(await store.find(Filter())) == 2


async def test_verifying_tells_intact_tampered_and_unchecked_apart(
    store: Store, command: Command, tmp_path: Path, database_url: str
) -> None:
    sealing = Sealing(Settings.model_construct(data_dir=tmp_path, seal_key=None), store)
    for _ in range(2):
        await held(store)
        assert await sealing.seal() == 1
    good = await command("export", "--verify")
    assert good.exit_code == 0 and "intact: 2 jobs" in good.stdout, good.output
    assert json.loads((await command("export", "--verify", "--json")).stdout)["intact"]

    (tmp_path / "seal.key").rename(tmp_path / "away")
    keyless = await command("export", "--verify")
    assert keyless.exit_code == 3 and "isn't at hand" in keyless.stderr
    (tmp_path / "our.pub").write_text(SealKey((tmp_path / "away").read_text()).public)
    assert (await command("export", "--verify", "--key", str(tmp_path / "our.pub"))).exit_code == 0
    (tmp_path / "away").rename(tmp_path / "seal.key")

    nowhere = await command("export", "--verify", "--against", str(tmp_path / "nowhere"))
    assert nowhere.exit_code == 3 and "nowhere" in nowhere.stderr
    for name, words in (("empty", b""), ("cut", (tmp_path / "seals.log").read_bytes()[:-9])):
        (tmp_path / name).write_bytes(words)
        cut = await command("export", "--verify", "--against", str(tmp_path / name))
        assert cut.exit_code == 3 and f"not checked: {tmp_path / name}" in cut.stderr, cut.output

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET adapter = 'another' WHERE id = (SELECT id FROM jobs LIMIT 1)")
    for more in ([], ["--against", str(tmp_path / "nowhere")], ["--against", str(tmp_path / "seals.log")]):
        bad = await command("export", "--verify", *more)
        assert bad.exit_code == 1 and "what it is about, or its counts, was changed" in bad.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: urlsplit(url)._replace(path="/nothing").geturl(), "no such database"),
        (lambda url: "postgresql://gateway@nowhere.invalid/gateway", "the host of the database isn't known"),
        (lambda url: "postgresql://gateway@127.0.0.1:1/gateway", "no database runs where database_url says"),
        (lambda url: url.replace("gateway@", "stranger@"), "doesn't let our user in"),
    ],
)
async def test_what_is_wrong_with_the_database_is_told_apart(
    database_url: str, secret_key: str, change: Callable[[str], str], told: str, tmp_path: Path
) -> None:
    settings = {
        "GATEWAY_DATABASE_URL": change(database_url),
        "GATEWAY_SECRET_KEYS": f'["{secret_key}"]',
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    for arguments, code in ((["jobs", "list"], 1), (["jobs", "export", "--verify"], 3)):
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=settings)
        assert result.exit_code == code and told in result.stderr, result.output
    structlog.reset_defaults()


async def test_a_wrong_password_is_called_one(tmp_path: Path, secret_key: str) -> None:
    async with embedded.serve(tmp_path, fast=True) as url:
        rules = tmp_path / "postgres" / "cluster" / "pg_hba.conf"
        rules.write_text("local all stranger scram-sha-256\n" + rules.read_text())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'right'")
            connection.execute("SELECT pg_reload_conf()")
        settings = {"GATEWAY_SECRET_KEYS": f'["{secret_key}"]', "GATEWAY_DATA_DIR": str(tmp_path)}
        settings["GATEWAY_DATABASE_URL"] = url.replace("gateway@", "stranger:wrong-secret@")

        async def told() -> str:
            result = await asyncio.to_thread(CliRunner().invoke, app, ["jobs", "list"], env=settings)
            assert result.exit_code == 1 and "wrong-secret" not in result.output
            return result.stderr

        async def refused() -> bool:  # once the server has read its rules again
            return "refuses our password" in await told()

        await until(refused)
    structlog.reset_defaults()


async def test_who_looks_creates_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    for arguments, code in (
        (["jobs", "list"], 1),
        (["jobs", "show", "1"], 1),
        (["jobs", "export", "--verify"], 3),
        (["audit", "list"], 1),
        (["jobs", "watch"], 1),
        (["replay", "--since", "2026-01-31"], 1),
        (["evidence", "--patient", "1"], 1),
        (["key", "--public"], 1),
    ):
        settings = {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_CONFIG": ""}
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=settings)
        assert result.exit_code == code and "GATEWAY_CONFIG isn't set" in result.stderr, result.output
        assert "yet" in result.stderr
        assert list(tmp_path.iterdir()) == []
    structlog.reset_defaults()


def test_keys_are_made() -> None:
    Fernet(CliRunner().invoke(app, ["key"]).stdout.strip())
    SealKey(CliRunner().invoke(app, ["key", "--seal"]).stdout)
