"""One gateway process among several on one database and one data_dir, of this release or the last one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tests.peers.ports import free_port

HERE = Path(__file__).resolve().parents[2]
LAST_RELEASE = "51b4f61"  # until one has a tag
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
STARTS_WITHIN = 120.0
STOPS_WITHIN = 60.0


class Replica:
    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.name = f"replica-{number}"
        self.ae_title = f"GATEWAY{number}"
        self.port, self.dicom_port = free_port(), free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.frozen = False
        self.starts = 0
        self.stops: list[float] = []  # how long each took
        self.exits: list[str] = []  # how it ended though nobody had killed it
        self._folder = folder
        self._clock = folder / f"{self.name}.clock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self.name}.*.log"))

    @property
    def last_words(self) -> str:
        lines = self.logs[-1].read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self, config: Path, code: Path, *, clock: bool = False) -> None:
        """Its doors may not be open yet when it returns."""
        self.starts += 1
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {
            "PYTHONPATH": str(code),
            "PYTHONPYCACHEPREFIX": str(self._folder.parent / "bytecode" / code.name),
            "GATEWAY_LISTEN__PORT": str(self.port),
            "GATEWAY_DIMSE__PORT": str(self.dicom_port),
            "GATEWAY_DIMSE__AE_TITLE": self.ae_title,
        }
        if clock:
            self.set_clock(0)
            environment |= self._fake_clock()
            environment["PYTHONPATH"] = f"{code}:{HERE / 'tests/soak/faked'}"
        with (self._folder / f"{self.name}.{self.starts:03}.log").open("wb") as words:
            self.process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *(sys.executable, "-m", "gateway", "run", "--config", str(config)),
                cwd=code,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=environment,
                start_new_session=True,
            )

    async def listen(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(STARTS_WITHIN):
            while not self._is_listening():
                if self.process.returncode is not None:
                    raise RuntimeError(f"{self.name} didn't start: {self.logs[-1].read_text()[-2000:]}")
                await asyncio.sleep(0.1)

    def _is_listening(self) -> bool:
        return any('"listening"' in line for line in self.logs[-1].read_text(errors="replace").splitlines())

    def set_clock(self, seconds: int) -> None:
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}s\n")
        fresh.replace(self._clock)

    def _fake_clock(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def freeze(self) -> None:
        self.frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self.process is not None:
            self._signal(signal.SIGKILL)
            await self.process.wait()
        self.frozen = False

    async def stop(self) -> None:
        """As systemd does."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        began = time.monotonic()
        try:
            code = await asyncio.wait_for(process.wait(), STOPS_WITHIN)
        except TimeoutError:
            self.exits.append(f"{self.name} hadn't stopped {STOPS_WITHIN:.0f} s after SIGTERM")
            await self.kill()
        else:
            self.stops.append(time.monotonic() - began)
            if code != 0:
                self.exits.append(f"{self.name} ended with {code} after SIGTERM")

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def events(self) -> list[dict[str, object]]:
        """Of all its lives."""
        found = []
        for path in self.logs:
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("{"):
                    with suppress(ValueError):
                        found.append(json.loads(line))
        return found


def unpack_last_release(folder: Path) -> Path | None:
    """The release before this one, as its last tag has it; None where git doesn't know it."""
    git = ("git", "-C", str(HERE))
    with suppress(OSError, subprocess.CalledProcessError):
        told = subprocess.run((*git, "describe", "--tags", "--abbrev=0"), capture_output=True, text=True)
        release = told.stdout.strip() if told.returncode == 0 else LAST_RELEASE
        packed = subprocess.run((*git, "archive", release), capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
        return folder
    return None


def gateways_of(folder: Path) -> Iterator[int]:
    """Their process ids: each gateway was told of the folder, and so was whatever became one."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"gateway" in command and any(str(folder).encode() in word for word in command):
                yield int(entry.name)
