"""A PostgreSQL of the soak's own, which can be ended in any way and started again behind the same url."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from gateway.embedded import leash
from gateway.embedded.programs import Account, Programs, choose_account, find_programs, make_reachable
from tests.peers.ports import free_port

PASSWORD = "secret-of-the-database"
CONNECTIONS = 80
READY_WITHIN = 60.0
_HERE = "/proc/self/cwd"
NOTHING_MORE: Mapping[str, str] = {}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": str(CONNECTIONS),
    "shared_buffers": "32MB",
    "fsync": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


class Postgres:
    """`gateway` owns the database and may do nothing else; `url` is for it, `ours` for whoever disturbs."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = NOTHING_MORE) -> None:
        self.port = free_port()
        self._settings = {**_SETTINGS, **settings}
        self._home = folder
        self._cluster = folder / "cluster"
        self._account = Account(os.geteuid(), os.getegid())
        self._process: asyncio.subprocess.Process | None = None
        self._programs: Programs | None = None

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"postgresql://gateway:{PASSWORD}@127.0.0.1:{port}/gateway"

    @property
    def ours(self) -> str:
        return f"postgresql://soak@127.0.0.1:{self.port}/gateway"

    async def create(self) -> None:
        await self._prepare()
        assert self._programs is not None
        arguments = f"-D {_HERE} -U soak -E UTF8 --locale=C -A trust --no-instructions --no-sync".split()
        process = await self._spawn(self._programs.initdb, arguments)
        if await process.wait() != 0:
            raise RuntimeError(f"initdb failed: {self.log[-1000:]}")
        await self.start()
        admin = f"postgresql://soak@127.0.0.1:{self.port}/postgres"
        async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
            await connection.execute("CREATE ROLE gateway LOGIN")
            await connection.execute("CREATE DATABASE gateway OWNER gateway")

    async def recover(self, base: Path, log: Path) -> None:
        """From a copy that `pg_basebackup` has made, and what another server has archived since."""
        await self._prepare()
        for taken, place in ((base, self._cluster), (log, self.archived)):
            shutil.copytree(taken, place, dirs_exist_ok=True)
            for each in (place, *place.rglob("*")):
                os.chown(each, self._account.uid, self._account.gid, follow_symlinks=False)
        (self._cluster / "recovery.signal").touch()
        await self.start()

    @property
    def archived(self) -> Path:
        """Where its log is kept, if it is told to: `../archived`, as it sees that."""
        return self._home / "archived"

    async def _prepare(self) -> None:
        self._home.mkdir(mode=0o755)
        self._account = choose_account(self._cluster)
        runtime = self._home / "software"
        runtime.mkdir(mode=0o755)
        self._programs = await asyncio.to_thread(make_reachable, find_programs(self._cluster), runtime)
        for folder in (self._cluster, self.archived):
            folder.mkdir(mode=0o700)
            os.chown(folder, self._account.uid, self._account.gid)

    @property
    def log(self) -> str:
        return (self._home / "postgres.log").read_text(errors="replace")

    async def start(self) -> None:
        assert self._programs is not None
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = self._settings | {"port": str(self.port)}
        arguments = ["-D", _HERE]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        self._process = await self._spawn(self._programs.postgres, arguments)
        admin = f"postgresql://soak@127.0.0.1:{self.port}/postgres"
        async with asyncio.timeout(READY_WITHIN):
            while True:
                try:
                    async with await psycopg.AsyncConnection.connect(admin, connect_timeout=5):
                        return
                except psycopg.OperationalError:
                    if self._process.returncode is not None:
                        raise RuntimeError(f"PostgreSQL doesn't start: {self.log[-1000:]}") from None
                    await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> None:
        """SIGINT is fast, SIGQUIT immediate."""
        process = self._process
        if process is None:
            return
        for deadly in (how, signal.SIGQUIT, signal.SIGKILL):
            if process.returncode is None:
                process.send_signal(deadly)
                try:
                    await asyncio.wait_for(process.wait(), 15)
                except TimeoutError:
                    continue
            break
        self._process = None

    async def _spawn(self, program: Path, arguments: list[str]) -> asyncio.subprocess.Process:
        with (self._home / "postgres.log").open("ab") as words:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(leash.__file__)),
                *(str(os.getpid()), str(int(signal.SIGQUIT))),
                *(str(self._account.uid), str(self._account.gid), str(program), *arguments),
                cwd=self._cluster,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )


@asynccontextmanager
async def postgres(
    folder: Path,
    settings: Mapping[str, str] = NOTHING_MORE,
    recovered: tuple[Path, Path] | None = None,
) -> AsyncIterator[Postgres]:
    """`recovered`: from that base backup and that log, instead of being new."""
    server = Postgres(folder, settings)
    try:
        await (server.create() if recovered is None else server.recover(*recovered))
        yield server
    finally:
        await server.end(signal.SIGINT)
        shutil.rmtree(folder / "software", ignore_errors=True)
