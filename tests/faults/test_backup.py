"""The machine is lost; its backup goes on elsewhere, and does nothing a second time for want of knowing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from cryptography.fernet import Fernet
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from gateway.embedded import server as embedded
from gateway.embedded.programs import Programs, all_programs, choose_account, make_reachable
from gateway.jobs.schema import migrate
from tests.peers.gateway import Hospital, Patient, hospital

pytestmark = pytest.mark.slow


async def type_(*words: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


class Desk:
    """Where commands are typed."""

    def __init__(self, house: Hospital, folder: Path) -> None:
        self._house = house
        self.folder = folder

    def write(self, name: str, **changes: Any) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump({**self._house.configuration, **changes}))
        return path

    async def do(self, *words: object) -> str:
        result = await type_(*words)
        assert result.exit_code == 0, result.output
        return result.output

    async def back_up(self, config: Path) -> Path:
        await self.do("backup", "--config", config, "--out", self.folder / "backups")
        return max((self.folder / "backups").glob("*.json"))


async def once_and_whole(house: Hospital, patient: Patient) -> None:
    await house.job_on(patient.slide, "done")
    assert house.bytes_arrived(patient) == [1] * len(patient.instances)
    assert len(house.results_on(patient.slide)) == 1
    assert len(house.stored_of(patient.study)) == 2


async def test_what_was_sent_after_the_backup_is_not_sent_again(
    tmp_path: Path, database_url: str, empty_database_url: str
) -> None:
    """One job had only been accepted when it was made, one was held at its vendor's, one had ended."""
    async with hospital(tmp_path, database_url) as house:
        desk = Desk(house, tmp_path)
        await house.start()
        ended, sent, accepted = house.admit(), house.admit(), house.admit()
        await house.fire(ended.slide)
        await house.job_on(ended.slide, "done")
        gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
        await house.fire(sent.slide)
        await gate.wait()
        await house.gateway.kill()
        await house.start("--only", "intake")
        await house.fire(accepted.slide)
        backup = await desk.back_up(tmp_path / "gateway.yaml")
        house.gates.open_all()

        await house.gateway.stop()
        await house.start()  # it goes on after the backup, as a gateway does
        for patient in (sent, accepted):
            await once_and_whole(house, patient)
        await house.gateway.kill()  # and is lost

        house.configuration |= {"database_url": empty_database_url, "data_dir": str(tmp_path / "another")}
        shutil.copytree(tmp_path / "data", tmp_path / "another")
        said = await desk.do("restore", backup, "--config", desk.write("elsewhere.yaml"))
        assert "verified: 3 jobs" in said and "2 jobs go on" in said
        await house.start()
        for patient in (ended, sent, accepted):
            await once_and_whole(house, patient)
        told = (await house.job_on(accepted.slide, "done"))["events"]
        assert any(event["what"].startswith("brought back from the backup of ") for event in told)
        await house.gateway.stop()
        verified = await desk.do("jobs", "export", "--verify", "--config", tmp_path / "elsewhere.yaml")
        assert "intact: " in verified


async def test_what_can_not_be_trusted_or_read_is_not_restored(
    tmp_path: Path, database_url: str, empty_database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        desk = Desk(house, tmp_path)
        await house.start("--only", "intake")
        await house.fire(house.admit().slide)
        backup = await desk.back_up(tmp_path / "gateway.yaml")
        dump = backup.with_suffix(".dump")
        for file in (backup, dump):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        words = backup.read_text() + dump.read_bytes().decode("latin-1")
        assert house.configuration["secret_keys"][0] not in words

        full = await type_("restore", backup, "--config", tmp_path / "gateway.yaml")
        assert full.exit_code == 1 and "isn't empty" in full.output
        elsewhere = desk.write("elsewhere.yaml", database_url=empty_database_url)
        keyless = desk.write(
            "keyless.yaml", database_url=empty_database_url, secret_keys=[Fernet.generate_key().decode()]
        )
        fingerprint = (await desk.do("key", "--fingerprints", "--config", elsewhere)).splitlines()
        refused = await type_("restore", backup, "--config", keyless)
        assert refused.exit_code == 1 and any(f"lack {each} " in refused.output for each in fingerprint)
        whole = dump.read_bytes()
        for spoilt in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
            dump.write_bytes(spoilt)
            refused = await type_("restore", backup, "--config", elsewhere)
            assert refused.exit_code == 1 and "its checksum differs" in refused.output
        dump.write_bytes(whole[: len(whole) // 2])  # by one who knows how to reckon
        told = json.loads(backup.read_text())
        backup.write_text(json.dumps({**told, "sha256": hashlib.sha256(dump.read_bytes()).hexdigest()}))
        assert (await type_("restore", backup, "--config", elsewhere)).exit_code == 1
        dump.write_bytes(whole)
        backup.write_text(json.dumps(told))
        await desk.do("restore", backup, "--config", elsewhere)  # nothing of the tries stands in the way


async def test_a_server_of_an_older_release_gets_it_back_too(tmp_path: Path) -> None:
    """The newest pg_restore tells it what it doesn't know."""
    programs = min(all_programs(), key=lambda each: each.version)
    assert programs.version < 17
    cluster = tmp_path / "old" / "postgres" / "cluster"
    cluster.mkdir(mode=0o700, parents=True)
    make_old_cluster(programs, cluster)
    async with embedded.serve(tmp_path / "old", fast=True) as url:
        await asyncio.to_thread(migrate, url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE elsewhere")
            assert connection.info.server_version // 10000 == programs.version
        key = Fernet.generate_key().decode()
        for name, place in (("here.yaml", url), ("there.yaml", url.replace("/gateway?", "/elsewhere?"))):
            settings = {
                "database_url": place,
                "secret_keys": [key],
                "data_dir": str(tmp_path / f"{name}.data"),
            }
            (tmp_path / name).write_text(yaml.safe_dump(settings))
        out = tmp_path / "backups"
        made = await type_("backup", "--config", tmp_path / "here.yaml", "--out", out)
        assert made.exit_code == 0, made.output
        [backup] = out.glob("*.json")
        restored = await type_("restore", backup, "--config", tmp_path / "there.yaml")
        assert restored.exit_code == 0, restored.output
        assert "verified: 0 jobs" in restored.output


def make_old_cluster(programs: Programs, cluster: Path) -> None:
    """As whoever the server will run as, who may not see where our programs lie."""
    account = choose_account(cluster)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        reachable = make_reachable(programs, Path(folder))
        for place in (cluster, *cluster.parents[:2]):
            os.chown(place, account.uid, account.gid)
        words = f"-D {embedded.HERE} -U gateway -E UTF8 --locale=C -A trust --no-sync"
        subprocess.run(
            [reachable.initdb, *words.split()],
            cwd=cluster,
            check=True,
            stdout=subprocess.DEVNULL,
            user=account.uid if os.geteuid() == 0 else None,
            group=account.gid if os.geteuid() == 0 else None,
        )


async def test_only_the_newest_are_kept_and_a_full_disk_leaves_no_half(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        desk = Desk(house, tmp_path)
        config = desk.write("gateway.yaml")
        out = tmp_path / "backups"
        for number in range(3):
            await desk.back_up(config)
            for file in out.glob("gateway-2*"):
                file.rename(out / f"gateway-{number}{file.suffix}")
        await desk.do("backup", "--config", config, "--out", out, "--keep", 2)
        assert len(list(out.iterdir())) == 4  # without seals: none has left it yet
        refused = await type_("backup", "--config", config, "--out", "/dev/full/backups")
        assert refused.exit_code == 1 and "no backup could be made in" in refused.output


async def test_an_embedded_database_moves_to_a_server(tmp_path: Path, empty_database_url: str) -> None:
    async with hospital(tmp_path, None) as house:
        desk = Desk(house, tmp_path)
        await house.start()
        patient = house.admit()
        await house.fire(patient.slide)
        await house.job_on(patient.slide, "done")
        key = f"${{file:{tmp_path / 'data' / 'secret.key'}}}"
        target = desk.write("server.yaml", database_url=empty_database_url, secret_keys=[key])
        runs = await type_("move-database", target, "--config", tmp_path / "gateway.yaml")
        assert runs.exit_code == 1 and "the gateway runs on this database" in runs.output
        await house.gateway.stop()
        await desk.do("move-database", target, "--config", tmp_path / "gateway.yaml")
        house.configuration |= {"database_url": empty_database_url, "secret_keys": [key]}
        await house.start()
        await once_and_whole(house, patient)
        another = house.admit()
        await house.fire(another.slide)
        await once_and_whole(house, another)
