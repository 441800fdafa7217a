"""Somebody spoils the database: PostgreSQL's own log brings it back to the moment before, and the gateway
goes on from there without doing anything a second time (deploy/operations.md, "To any point in time")."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from gateway.embedded.programs import all_programs
from tests.faults.test_backup import Desk, once_and_whole, type_
from tests.peers.gateway import Hospital, Patient, hospital
from tests.soak.postgres import Postgres, postgres

pytestmark = pytest.mark.slow


async def ask(url: str, statement: str) -> str:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement)
        row = await cursor.fetchone() if cursor.description else None
        return str(row[0]) if row else ""


async def copy_base(server: Postgres, to: Path) -> None:
    newest = max(all_programs(), key=lambda each: each.version)
    program = newest.folder / "bin" / "pg_basebackup"
    done = await asyncio.create_subprocess_exec(
        *(program, "-d", server.ours, "-D", to, "-X", "none", "-c", "fast"), stderr=subprocess.DEVNULL
    )
    assert await done.wait() == 0


async def done_on(house: Hospital) -> Patient:
    patient = house.admit()
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "done")
    return patient


async def once_again_and_whole(house: Hospital, patient: Patient) -> None:
    """Nobody knows that it had been sent, but nobody sees its result twice."""
    await house.job_on(patient.slide, "done")
    shown = [result["displayResult"] for result in house.results_on(patient.slide)]
    assert len([told for told in shown if told != "replaced by a newer result"]) == 1
    assert len(house.stored_of(patient.study)) == 2


async def test_to_the_moment_before_a_mistake(tmp_path: Path, empty_database_url: str) -> None:
    keeps = {"wal_level": "replica", "archive_mode": "on", "archive_command": "cp %p ../archived/%f"}
    async with postgres(tmp_path / "server", keeps) as server, hospital(tmp_path, server.url) as house:
        desk = Desk(house, tmp_path)
        await house.start()
        early = await done_on(house)
        await copy_base(server, tmp_path / "base")
        later = await done_on(house)  # in PostgreSQL's log alone
        gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
        sent = house.admit()
        await house.fire(sent.slide)
        await gate.wait()
        await house.gateway.stop()  # which seals
        before = await ask(server.ours, "SELECT clock_timestamp()")
        house.gates.open_all()
        await house.start()
        await house.job_on(sent.slide, "done")
        unknown = await done_on(house)
        await house.gateway.stop()
        await ask(
            server.ours, "UPDATE jobs SET state = 'cancelled', study_instance_uid = NULL"
        )  # the mistake
        await ask(server.ours, "SELECT pg_switch_wal()")
        spoilt = await type_("jobs", "export", "--verify", "--config", tmp_path / "gateway.yaml")
        assert spoilt.exit_code == 1, spoilt.output
        await server.end(signal.SIGINT)

        back = {
            "restore_command": "cp ../archived/%f %p",
            "recovery_target_time": before,
            "recovery_target_action": "promote",
        }
        saved = tmp_path / "base", server.archived
        async with postgres(tmp_path / "recovered", back, saved) as recovered:
            house.configuration["database_url"] = recovered.url
            config = desk.write("recovered.yaml")
            cut = await type_("jobs", "export", "--verify", "--config", config)
            assert (cut.exit_code, cut.output.count("is gone from the database")) == (1, 1), cut.output
            short = await desk.back_up(config)
            made = await desk.do("backup", "--recovered", "--config", config, "--out", tmp_path / "whole")
            assert "seals of what came later, and isn't there: 1" in made
        [backup] = (tmp_path / "whole").glob("*.json")
        house.configuration |= {"database_url": empty_database_url}
        config = desk.write("elsewhere.yaml")
        said = await desk.do("restore", backup, "--config", config)
        assert "verified: 3 jobs" in said and "1 jobs go on" in said
        assert "the seals that were made since the backup" in said
        assert len(list((tmp_path / "data").glob("seals-before-restore-*.log"))) == 1
        await house.start()
        for patient in (early, later, sent):
            await once_and_whole(house, patient)
        await house.fire(unknown.slide)  # a user asks again for what isn't known any more
        await once_again_and_whole(house, unknown)
        await house.gateway.stop()
        assert "intact: " in await desk.do("jobs", "export", "--verify", "--config", config)
    assert short != backup
