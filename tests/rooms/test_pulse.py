"""What a loop that works, or waits, leaves standing is felt; what the machine does besides isn't."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.peers.pulse import Pulse, feel, pulses

LOOP = """
import asyncio, sys, time
from pathlib import Path
from tests.peers.pulse import with_pulse
with_pulse(Path(sys.argv[1]))
import uvloop

def work(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass

async def main():
    print("here", flush=True)
    await asyncio.sleep(0.5)
    %s
    await asyncio.sleep(0.3)

uvloop.run(main())
"""


@contextmanager
def burners(count: int) -> Iterator[None]:
    with ExitStack() as burning:
        for _ in range(count):
            process = burning.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            burning.callback(process.kill)
        yield


def felt(folder: Path, does: str) -> list[Pulse]:
    words = folder / "words.log"
    command = [sys.executable, "-c", LOOP % does, str(words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        feel(process.pid)
    return pulses(words, 0, time.monotonic())


@pytest.mark.parametrize("does", ["work(0.6)", "time.sleep(0.6)"])
def test_a_loop_that_gives_no_turn_is_felt(tmp_path: Path, does: str) -> None:
    assert max(pulse.stalled for pulse in felt(tmp_path, does)) > 0.5


def test_a_busy_machine_is_not(tmp_path: Path) -> None:
    with burners(4 * (os.cpu_count() or 1)):
        found = felt(tmp_path, "work(0.2)")
    slowest = max(found, key=lambda pulse: pulse.waited)
    assert slowest.waited > 2 * slowest.stalled, slowest
    assert slowest.worked > 0.15, slowest
