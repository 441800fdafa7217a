"""The server as a foreground child: dies with its parent, listens on a socket in a private folder only.

data_dir/postgres/   lock        held while a gateway uses the folder
                     server      held by the server and all its children, as long as one of them lives
                     url         how other commands reach the server while it runs
                     server.log  what the server says
                     cluster/    the database, owned by the user whom the server runs as
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import psycopg
import structlog

from gateway.contract import NeedsHuman
from gateway.embedded.programs import Account, Programs, choose_account, find_programs, make_reachable
from gateway.embedded.running import home_of
from gateway.loops import Loop

log = structlog.get_logger(__name__)

READY_WITHIN = 120.0  # recovery after a crash replays what was written since the last checkpoint
STOP_WITHIN = 20.0
GONE_WITHIN = 30.0
# Never the absolute path: parents that the server's user can't enter don't matter then.
HERE = "/proc/self/cwd"
RUNTIME = "gateway-pg-"

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    # What a statement was about is a patient's data, and stays out of the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_checkpoints": "off",
}
# Killed processes lose nothing all the same, only a machine that loses its power does.
SETTINGS_FAST = {"fsync": "off", "full_page_writes": "off"}


@asynccontextmanager
async def serve(data_dir: Path, *, fast: bool = False) -> AsyncIterator[str]:
    """The URL of a server that runs for the duration of the block."""
    server = await start(data_dir, fast=fast)
    try:
        yield server.url
    finally:
        await server.stop()


async def start(data_dir: Path, *, fast: bool = False) -> Server:
    """`fast` gives up durability against a power cut: for tests only."""
    home = home_of(data_dir)
    server = Server(home, fast=fast)
    try:
        await server._begin()
    except OSError as error:
        await server.stop()
        raise NeedsHuman(
            f"the folder for the embedded database, {home}, can't be used: {error.strerror or error}",
            "Give data_dir a folder that the gateway's user may write to, on a disk with some room.",
        ) from error
    except BaseException:
        await server.stop()
        raise
    log.warning(
        "embedded database in use: fine for a demo, a test or a trial; production wants a PostgreSQL server "
        "of its own, with backups (set database_url)",
        folder=str(home),
    )
    return server


class Server:
    """A running server. Should it die under us, it is started again behind the same URL."""

    def __init__(self, home: Path, *, fast: bool) -> None:
        self._home = home
        self._lock: int | None = None
        self._settings = SETTINGS | (SETTINGS_FAST if fast else {})
        self._fast = fast
        self._cluster = home / "cluster"
        self._account = Account(os.geteuid(), os.getegid())
        self._runtime: Path | None = None
        self._runtime_lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.url = ""

    async def _begin(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = await _lock(self._home)
        for old in ("url", "server.log"):
            (self._home / old).unlink(missing_ok=True)
        await _wait_until_gone(self._home)
        self._account = choose_account(self._cluster)
        programs = find_programs(self._cluster)
        self._runtime = self._make_runtime()
        programs = await asyncio.to_thread(make_reachable, programs, self._runtime)
        self.url = self._address("gateway")
        if not self._cluster.exists():
            await self._create_cluster(programs)
        await self._launch(programs)
        _replace(self._home / "url", self.url)
        self._watch = asyncio.create_task(self._keep_alive(programs), name="embedded database")

    async def stop(self) -> None:
        """Idempotent, and leaves no process, socket or lock behind."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        try:
            if self._process is not None:
                await _end(self._process)
                self._process = None
                await _wait_until_gone(self._home)
        finally:
            if self._lock is not None:
                (self._home / "url").unlink(missing_ok=True)
                if self._runtime is not None:
                    shutil.rmtree(self._runtime, ignore_errors=True)
                if self._runtime_lock is not None:
                    os.close(self._runtime_lock)
                    self._runtime_lock = None
                os.close(self._lock)
                self._lock = None

    def _address(self, database: str) -> str:
        return f"postgresql://gateway@/{database}?host={self._runtime}&port=5432"

    def _make_runtime(self) -> Path:
        """A short path, for a socket's may have 107 bytes; below /tmp, where every user can go."""
        shared = Path("/tmp")  # noqa: S108 - the folder made in it is private
        if not os.access(shared, os.W_OK):
            shared = Path(tempfile.gettempdir())
        for left_behind in shared.glob(f"{RUNTIME}*"):
            _sweep(left_behind, self._account)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=RUNTIME, dir=shared))
            # For those who sweep: other gateways, and systemd-tmpfiles, which removes what is old.
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_SH)
            if folder.exists():
                break
            os.close(held)  # swept before it was held
        self._runtime_lock = held
        self._hand_over(folder)
        return folder

    def _hand_over(self, folder: Path) -> None:
        if self._account.uid != os.geteuid():  # a service that is confined may not even ask for what is so
            os.chown(folder, self._account.uid, self._account.gid)

    async def _create_cluster(self, programs: Programs) -> None:
        """Made beside its place and moved there when it is whole, so that a crash leaves no half of it."""
        fresh = self._home / "cluster.new"
        if fresh.exists():
            await asyncio.to_thread(shutil.rmtree, fresh)
        fresh.mkdir(mode=0o700)
        self._hand_over(fresh)
        arguments = f"-D {HERE} -U gateway -E UTF8 --locale=C -A trust --no-instructions".split()
        if self._fast:
            arguments.append("--no-sync")
        process = await self._spawn(programs.initdb, arguments, fresh, signal.SIGKILL)
        try:
            code = await asyncio.wait_for(process.wait(), READY_WITHIN)
        except TimeoutError:
            code = -1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            raise NeedsHuman(
                f"the embedded database could not be created in {self._home}: {self._last_words()}",
                "Mend what it says, or set database_url to a PostgreSQL server.",
            )
        fresh.rename(self._cluster)
        _sync_folder(self._home)

    async def _launch(self, programs: Programs) -> None:
        # Nobody else lives here (the lock says so), and a number in it may by now be another process's.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = self._settings | {"unix_socket_directories": str(self._runtime)}
        if programs.version < 18:
            del settings["io_method"]
        arguments = ["-D", HERE]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        # SIGINT is PostgreSQL's fast shutdown: sessions are cut, what is committed is kept.
        self._process = await self._spawn(programs.postgres, arguments, self._cluster, signal.SIGINT)
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._prepare_database(self._process)
        except TimeoutError:
            await _end(self._process)
            raise NeedsHuman(
                f"the embedded database in {self._home} was not ready after {READY_WITHIN:.0f} s: "
                f"{self._last_words()}",
                "Look at the file server.log in that folder.",
            ) from None

    async def _prepare_database(self, process: asyncio.subprocess.Process) -> None:
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._address("postgres"), autocommit=True, connect_timeout=5
                )
                async with connection:
                    found = await connection.execute("SELECT FROM pg_database WHERE datname = 'gateway'")
                    if found.rowcount == 0:
                        await connection.execute("CREATE DATABASE gateway")
            except psycopg.OperationalError:  # not ready yet, or never
                if process.returncode is not None:
                    raise NeedsHuman(
                        f"the embedded database in {self._home} doesn't start: {self._last_words()}",
                        "Mend what it says, or set database_url to a PostgreSQL server.",
                    ) from None
                await asyncio.sleep(0.02)
            else:
                return

    async def _spawn(
        self, program: Path, arguments: list[str], folder: Path, deadly: signal.Signals
    ) -> asyncio.subprocess.Process:
        with ExitStack() as opened:
            life = os.open(self._home / "server", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, life)
            words = os.open(
                self._home / "server.log",
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
                0o600,
            )
            opened.callback(os.close, words)
            fcntl.flock(life, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leash = Path(__file__).with_name("leash.py")
            return await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(leash), str(os.getpid()), str(int(deadly)),
                str(self._account.uid), str(self._account.gid), str(program), *arguments,
                cwd=folder,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=(life,),
                start_new_session=True,  # Ctrl-C at a terminal is for us; the server outlasts our last writes
            )  # fmt: skip

    async def _keep_alive(self, programs: Programs) -> None:
        async def restart() -> None:
            assert self._process is not None
            code = await self._process.wait()
            log.error("embedded database ended unexpectedly; starting it again", exit_code=code)
            await asyncio.sleep(0.5)
            await _wait_until_gone(self._home)
            await self._launch(programs)

        await Loop("embedded database", most=5).run(restart)

    def _last_words(self) -> str:
        lines = (self._home / "server.log").read_text(errors="replace").splitlines()
        telling = [
            line for line in lines if ("FATAL" in line or "rror" in line) and "is starting up" not in line
        ] or lines
        return telling[-1].strip() if telling else "it said nothing."


def _sweep(folder: Path, account: Account) -> None:
    """What a killed gateway left below /tmp: ours by its owner, and nobody holds it any more."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # swept by another meanwhile, or not ours
        return
    try:
        if os.fstat(held).st_uid in (account.uid, os.geteuid()):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _lock(home: Path) -> int:
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(10):  # a command that asks for the running server holds it for a moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(0.05)
        else:
            return descriptor
    os.close(descriptor)
    raise NeedsHuman(
        f"another gateway is using the embedded database in {home}",
        "Stop it, or give this one a data_dir of its own.",
    )


async def _wait_until_gone(home: Path) -> None:
    """Until the last process of a server whose gateway was killed has ended: each holds the lock."""
    descriptor = os.open(home / "server", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(GONE_WITHIN):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
                else:
                    return
    except TimeoutError:
        raise NeedsHuman(
            f"the PostgreSQL server of an earlier gateway in {home} hasn't ended in {GONE_WITHIN:.0f} s",
            f"Find it with `fuser {home}/server` and end it.",
        ) from None
    finally:
        os.close(descriptor)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Fast shutdown, then an immediate one, then no more asking."""
    for deadly in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(deadly)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_WITHIN)
