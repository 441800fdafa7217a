"""Workers in processes of their own, which a test may kill and freeze."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PATIENCE = 75.0
_HERE = Path(__file__).parent


class Worker:
    def __init__(self, url: str, key: str, manner: str, lease: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_HERE / "crew.py"), url, key, manner, str(lease)],
            cwd=_HERE.parents[1],
            env={"PYTHONPATH": str(_HERE.parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self, word: str) -> str:
        """The rest of its next line that begins so; its log lines are passed over."""
        assert self.process.stdout is not None
        patience = threading.Timer(_PATIENCE, self.process.kill)
        patience.start()
        try:
            for line in self.process.stdout:
                if line.startswith(word + " "):
                    return line.removeprefix(word).strip()
        finally:
            patience.cancel()
        raise AssertionError(f"it ended and never said {word}")

    def says(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def worker(database_url: str, secret_key: str) -> Iterator[Callable[..., Worker]]:
    begun: list[Worker] = []

    def begin(manner: str, lease: float = 180) -> Worker:
        begun.append(Worker(database_url, secret_key, manner, lease))
        return begun[-1]

    yield begin
    for member in begun:
        member.kill()
        for pipe in (member.process.stdin, member.process.stdout):
            assert pipe is not None
            pipe.close()
