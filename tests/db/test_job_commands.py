"""gateway jobs, as one uses it who is asked: where is my result?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from tests.db.crew import ask_for, bring

Command = Callable[..., Any]


@pytest.fixture
def command(database_url: str, secret_key: str, tmp_path: Path) -> Iterator[Command]:
    settings = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_SECRET_KEYS": f'["{secret_key}"]',
        "GATEWAY_DATA_DIR": str(tmp_path),
    }

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["jobs", *arguments], env=settings)

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
    still = await store.get(other.id)
    assert still is not None and still.state == State.HELD
    for wrong in ([], [str(other.id), "--all"], [str(other.id), "--adapter", "away"]):
        assert (await command("cancel", *wrong)).exit_code == 2, wrong
