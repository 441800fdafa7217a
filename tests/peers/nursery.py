"""Gateways born from a process that has imported the house once: to import it again for each of some hundred
gateways takes longer than all that most of them do. What is born has its own pid, environment and files, and
dies with its test process; how it comes up from a cold start is tested by the commands' own tests.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

from tests.peers.pulse import with_pulse

_HOUSE = [
    "uvloop",
    "gateway.__main__",
    "gateway.commands.daemon",
    "adapters.milvue.adapter",
    "adapters.sectra_ia.adapter",
    "adapters.dicomweb.adapter",
    "adapters.dimse.adapter",
    __name__,
]
_PR_SET_PDEATHSIG = 1

_nursery = multiprocessing.get_context("forkserver")
_nursery.set_forkserver_preload(_HOUSE)


class Born:
    """As asyncio's subprocesses are handled."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        if self.returncode is None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._process.sentinel, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def bear(arguments: Sequence[str], environment: Mapping[str, str], words: Path) -> Born:
    """`gateway` with these arguments; `words`: the file for what it says."""
    ours = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)  # the first who is born brings up the process that bears them all
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(ours)
    process = _nursery.Process(target=_live, args=(list(arguments), dict(environment), str(words)))
    process.start()
    return Born(process)


def _live(arguments: list[str], environment: dict[str, str], words: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(environment)
    said = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(said, number)
    os.close(said)
    sys.argv = ["gateway", *arguments]
    with_pulse(Path(words))

    from gateway.__main__ import main

    main()
