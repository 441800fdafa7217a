"""A database that stands still says nothing. Whoever sits before a command hears which it was,
and for what it was asked, and the command ends."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from gateway.__main__ import FAMILIES, app
from gateway.jobs import answering
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from tests.db.crew import ask_for
from tests.peers.frost import frost

NO_DATABASE = {"run", "migrate", "demo", "simulate", "key", "token", "restore", "explain"}
SINCE = ["--since", "2026-01-31"]
# What each is given, what the database is asked by it, and what the command ends with.
COMMANDS = {
    "jobs list": ([], "to list jobs", 1),
    "jobs show": (["JOB"], "to show a job", 1),
    "jobs watch": ([], "to tell what happens to jobs", 1),
    "jobs retry": (["JOB"], "to retry jobs", 1),
    "jobs cancel": (["JOB"], "to cancel jobs", 1),
    "jobs resume": (["--all", "--yes"], "to resume jobs", 1),
    "jobs export": ([], "to export jobs", 1),
    "jobs export --verify": ([], "to verify the histories", 3),
    "audit list": ([], "to tell who did what", 1),
    "config show": ([], "to tell which configuration is in force", 0),
    "status": ([], "to tell what is wrong", 1),
    "check": ([], "which tables it has", 1),
    "pause": (["adapter", "milvue", "--why", "they move"], "to pause adapter milvue", 1),
    "unpause": (["adapter", "milvue"], "to unpause adapter milvue", 1),
    "compare": (["--application", "trauma", *SINCE], "to compare results", 1),
    "evidence": (["--patient", "P1"], "to tell what was done with a patient's data", 1),
    "replay": (SINCE, "to decide jobs again", 1),
    "reconcile": ([], "to compare with archives", 1),
    "interesting": (["JOB"], "to show a study to its vendor", 1),
    "trial": (
        ["--application", "trauma", "--adapter", "milvue", "--studies", "LIST"],
        "to run a trial",
        1,
    ),
    "backup": (["--out", "OUT"], "to make a backup", 1),
    "move-database": (["MOVED"], "to be moved", 1),
}
AMID = {  # the question
    "jobs list": b"FROM jobs",
    "jobs cancel": b"UPDATE jobs",
    "jobs export --verify": b"FROM jobs",
    "pause": b"INTO pauses",
    "backup": b"alembic_version",
}
MILVUE = {"kind": "milvue", "url": "http://127.0.0.1:9", "token": "t", "commands": ["smarturgences"]}
ACTING = {"jobs cancel", "pause"}


@pytest.fixture
def files(secret_key: str, empty_database_url: str, tmp_path: Path) -> Path:
    trauma = {"display_name": "Trauma", "adapter": "milvue", "archives": ["vna"]}
    configured = {
        "secret_keys": [secret_key],
        "data_dir": str(tmp_path),
        "adapters": {"milvue": MILVUE},
        "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:9"}},
        "departments": {"emergency": {"contact": "it@hospital", "applications": {"trauma": trauma}}},
        "reconcile": {"at": "03:00", "archive": "vna", "since": "26h"},
    }
    for name, url in (("gateway", "${THE_DATABASE}"), ("moved", empty_database_url)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**configured, "database_url": url}))
    (tmp_path / "list.csv").write_text("study_instance_uid,fracture\n1.2.3,yes\n")
    return tmp_path


async def ask(files: Path, command: str, given: list[str], url: str, job: Job) -> tuple[str, int]:
    names = {
        "JOB": str(job.id),
        "LIST": str(files / "list.csv"),
        "OUT": str(files / "backups"),
        "MOVED": str(files / "moved.yaml"),
    }
    arguments = [*command.split(), *(names.get(each, each) for each in given)]
    environment = {"GATEWAY_CONFIG": str(files / "gateway.yaml"), "THE_DATABASE": url}
    if command != "check":
        told = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
        return told.output, told.exit_code
    process = await asyncio.create_subprocess_exec(  # it minds signals, which threads have none of
        *(sys.executable, "-m", "gateway", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environment,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return said.decode(), process.returncode


def test_each_command_that_asks_a_database_is_frozen_here() -> None:
    assert {name.split()[0] for name in COMMANDS} == set(FAMILIES) - NO_DATABASE


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_ends_and_says_which_database_stands_still(
    command: str, store: Store, database_url: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_FIRST", 0.1)
    monkeypatch.setattr(answering, "_TICK", 0.05)
    said = await hear(command, None, store, database_url, files)
    assert "Nobody knows whether that was done" not in said


@pytest.mark.parametrize("command", AMID)
async def test_a_command_ends_amid_a_question_and_says_if_it_may_be_done(
    command: str, store: Store, database_url: str, files: Path
) -> None:
    said = await hear(command, AMID[command], store, database_url, files)
    assert ("Nobody knows whether that was done" in said) == (command in ACTING)


async def hear(command: str, word: bytes | None, store: Store, database_url: str, files: Path) -> str:
    job, _ = await store.create(ask_for(application="trauma", adapter="milvue"))
    given, asked, code = COMMANDS[command]
    async with frost(database_url, word) as frozen:
        async with asyncio.timeout(300):
            said, ended = await ask(files, command, given, frozen.url, job)
        assert frozen.frozen, said
    name = urlsplit(database_url).path.strip("/")
    sentence = (
        f"the database {name} at 127.0.0.1 port {frozen.port} doesn't answer: asked {asked}, it said nothing"
    )
    assert sentence.lower() in " ".join(said.split()).lower(), said
    assert ended == code, said
    assert "psycopg" not in said
    return said
