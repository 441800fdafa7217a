"""The command line as a person at the hospital meets it: exit codes, sentences, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from gateway.sessions import Sessions
from gateway.settings.load import load
from gateway.settings.tree import Misconfigured
from gateway.work.vendors import Vendors

UNREACHABLE = """\
data_dir: {folder}/data
archives: {{vna: {{kind: dicomweb, url: "http://127.0.0.1:1/dicom-web"}}}}
adapters:
  milvue: {{kind: milvue, url: "http://127.0.0.1:1", token: t, commands: [smarturgences]}}
departments:
  emergency:
    applications:
      trauma: {{display_name: Trauma, adapter: milvue, archives: [vna]}}
"""
KEY = "8bGEqnMzQmEEkrFnTXFMQO0n7ET0HYWp0U3fUzFVGz4="


async def gateway(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text.format(folder=folder))
    return path


async def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """Run by root before the first start, it would else make data_dir root's."""
    code, _, complained = await gateway("check", "--config", str(write(tmp_path, UNREACHABLE)))
    assert code == 1
    assert "archives.vna" in complained
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.yaml"]


async def test_a_database_that_is_away_is_said_in_one_sentence(tmp_path: Path) -> None:
    away = f'database_url: "postgresql://gateway@127.0.0.1:1/gateway"\nsecret_keys: [{KEY}]\n'
    config = write(tmp_path, UNREACHABLE + away)
    code, said, complained = await gateway("jobs", "list", "--config", str(config))
    assert (code, said) == (1, "")
    assert complained == (
        f"configuration: {config}\n"
        "no database runs where database_url says; check that the server runs, and its host and port"
        " (the database gateway at 127.0.0.1 port 1, asked to list jobs)\n"
    )


async def test_looking_changes_no_table(tmp_path: Path, empty_database_url: str) -> None:
    """A newer release looks on while older replicas run."""
    config = write(tmp_path, UNREACHABLE + f'database_url: "{empty_database_url}"\nsecret_keys: [{KEY}]\n')
    code, said, complained = await gateway("jobs", "list", "--config", str(config))
    assert (code, said) == (1, "")
    assert complained.endswith("the database isn't migrated to this release: run gateway migrate first\n")


async def test_an_older_release_says_that_the_tables_are_newer(tmp_path: Path, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    config = write(tmp_path, UNREACHABLE + f'database_url: "{database_url}"\nsecret_keys: [{KEY}]\n')
    for command in ("run", "migrate"):
        code, said, complained = await gateway(command, "--config", str(config))
        assert (code, said) == (1, "")
        said_which = f"configuration: {config}\n" if command == "migrate" else ""  # the daemon's log says it
        assert complained.startswith(f"{said_which}the database is at 9999, which this release doesn't know")
        assert "Traceback" not in complained


async def test_a_state_that_is_none_is_wrong_use() -> None:
    code, _, complained = await gateway("jobs", "list", "--state", "hled")
    assert code == 2
    assert complained.endswith("cancelled, held; did you mean held?\n")


async def test_a_vendors_wrong_option_names_its_line(tmp_path: Path) -> None:
    wrong = UNREACHABLE.replace("commands: [smarturgences]", "comands: []").replace(
        "departments:", "  kidney: {{kind: nobodys}}\ndepartments:"
    )
    path = write(tmp_path, wrong)
    settings = load(path, {})
    async with Sessions() as sessions:
        with pytest.raises(Misconfigured) as caught:
            Vendors(settings, sessions)
    missing, unknown, nobodys = caught.value.problems
    assert missing == f"{path} line 4: adapters.milvue.commands is missing"
    assert unknown.startswith(f"{path} line 4: adapters.milvue.comands is not a key here; allowed: ")
    assert unknown.endswith("; did you mean commands?")
    assert nobodys.startswith(
        f"{path} line 5: adapters.kidney.kind is nobodys, which isn't installed; allowed: "
    )


async def look_at_what_a_demo_shows(said: str) -> None:
    found = re.search(r"The console is at (\S+)/ ; token: (\S+)", said)
    assert found is not None, said
    headers = {"Authorization": f"Bearer {found[2]}"}
    async with aiohttp.ClientSession(f"{found[1]}/api/v1/", headers=headers) as session:
        jobs = (await (await session.get("jobs")).json())["jobs"]
        peers = (await (await session.get("peers")).json())["peers"]
        acts = (await (await session.get("audit")).json())["acts"]
        counted = (await (await session.get("quality")).json())["applications"]
        first = next(peer for peer in peers if peer["name"] == "ris")
        async with asyncio.timeout(120):  # it is looked at again and again, as the page says
            while first in (await (await session.get("peers")).json())["peers"]:
                await asyncio.sleep(0.2)
    assert {"done", "held", "failed", "delivering"} <= {job["state"] for job in jobs}
    assert [peer["name"] for peer in peers if peer["state"] == "paused"] == ["nuclei"]
    assert "pause" in {act["what"] for act in acts}
    ended = {each["application"]: sum(one["results"] for one in each["versions"]) for each in counted}
    assert ended["nuclei"] == 1 and ended["milvue-trauma"] > 1000, "what was made up, and what was done"


async def see_it_go_on_as_a_gateway(said: str, home: Path) -> None:
    """It takes up what is changed in its file, and seals."""
    found = re.search(r"The console is at (\S+)/ ; token: (\S+)", said)
    assert found is not None, said
    path, headers = home / "gateway.yaml", {"Authorization": f"Bearer {found[2]}"}
    text = path.read_text()
    path.write_text(text.replace("display_name: Nuclei", "display_name: Nuclei as counted"))
    async with aiohttp.ClientSession(f"{found[1]}/api/v1/", headers=headers) as session, asyncio.timeout(240):
        told: dict[str, Any] = {"in_force": {"why": ""}}
        while told["in_force"]["why"] != "a changed file":
            await asyncio.sleep(0.2)
            told = await (await session.get("revisions")).json()
        while not (home / "data" / "seals.log").exists():
            await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_served_demo_ends_without_a_trace(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", "--serve"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        said = await process.stdout.readuntil(b"Ctrl-C")
        assert b"Everything arrived." in said
        assert list(tmp_path.glob("gateway-demo-*"))
        await look_at_what_a_demo_shows(said.decode())
        if number == signal.SIGTERM:
            [home] = tmp_path.glob("gateway-demo-*")
            await see_it_go_on_as_a_gateway(said.decode(), home)
        process.send_signal(number)
        rest, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, rest.decode()
    assert b"Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("door", ["listen", "monitor"])
async def test_a_port_that_is_taken_is_said_in_one_sentence(
    tmp_path: Path, database_url: str, door: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = write(
            tmp_path,
            f"{door}: {{{{host: 127.0.0.1, port: {port}}}}}\ndata_dir: {tmp_path}\n"
            f"database_url: {database_url}\nsecret_keys: [{KEY}]\n",
        )
        code, _, said = await gateway("run", "--config", str(config))
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"{door}: can't listen on 127.0.0.1, port {port}: Address already in use")


async def test_a_configuration_of_nothing_is_not_good() -> None:
    code, said, complained = await gateway("check", "--offline", GATEWAY_CONFIG="")
    assert (code, said) == (1, "")
    assert complained == "no application is configured; --config or GATEWAY_CONFIG names the file\n"
