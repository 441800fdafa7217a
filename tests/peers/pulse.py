"""How long the event loop of a gateway leaves whoever comes standing, felt from within its own process.

    with_pulse(words)               # before the gateway begins; nothing is done until somebody feels for it
    feel(pid)                       # from outside: from now on
    pulses(words, since, until)     # what was felt
    python -m tests.peers.pulse WORDS run --config …

Twenty times a second the loop is asked for a turn. What counts is how long it took to give one, less the time
in which threads of that process stood ready and the machine had no processor for them, as the kernel counts
it thread by thread: so a busy machine is no defect of the loop, and a loop that works or waits on something
is one on any machine. It never counts less than what the loop's own thread worked meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

_EVERY = 0.05
_BEGIN = signal.SIGUSR2


@dataclass(frozen=True, slots=True)
class Pulse:
    """Seconds. `at`: of the machine's monotonic clock. `waited` for the turn, `worked` by the loop's thread
    meanwhile, `stalled` of all that by the process itself."""

    at: float
    waited: float
    worked: float
    stalled: float


def with_pulse(words: Path) -> None:
    run = uvloop.run

    def felt(main: Coroutine[Any, Any, Any]) -> Any:
        async def begin() -> Any:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(_BEGIN, _begin, loop, place_of(words))
            return await main

        return run(begin())

    uvloop.run = cast(Any, felt)


def feel(pid: int) -> None:
    os.kill(pid, _BEGIN)


def place_of(words: Path) -> Path:
    return words.with_suffix(".pulse")


def pulses(words: Path, since: float, until: float) -> list[Pulse]:
    """Those asked for between the two."""
    lines = place_of(words).read_text().splitlines() if place_of(words).exists() else []
    felt = [Pulse(*map(float, line.split())) for line in lines if len(line.split()) == 4]
    return [pulse for pulse in felt if since <= pulse.at <= until]


class Delays:
    """How long threads of these processes stood ready without a processor since then. `besides`: a thread
    that doesn't count."""

    def __init__(self, pids: Iterable[int], besides: int = 0) -> None:
        self._pids, self._besides = list(pids), str(besides)
        self._before = self._look()
        self._told = dict(self._before)

    def seconds(self) -> float:
        """Of a thread that ends, as much as was told when it was last asked."""
        self._told |= self._look()
        return sum(max(0, told - self._before.get(thread, 0)) for thread, told in self._told.items()) / 1e9

    def _look(self) -> dict[str, int]:
        return {
            task.name: _delay(task)
            for pid in self._pids
            for task in _listed(Path(f"/proc/{pid}/task"))
            if task.name != self._besides
        }


def family() -> list[int]:
    """Who has a part in an answer: this process and all that stand below it, gateways and databases."""
    parents: dict[int, int] = {}
    for told in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(told.parent.name)] = int(told.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _delay(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError):  # it has ended; or a kernel that doesn't count it: then all counts as ours
        return 0


def _begin(loop: asyncio.AbstractEventLoop, place: Path) -> None:
    if not any(thread.name == "pulse" for thread in threading.enumerate()):
        args = (loop, place, time.pthread_getcpuclockid(threading.get_ident()))
        threading.Thread(target=_go_on, args=args, name="pulse", daemon=True).start()


def _go_on(loop: asyncio.AbstractEventLoop, place: Path, clock: int) -> None:
    given = threading.Event()
    after: list[float] = []

    def turn(delays: Delays) -> None:
        after[:] = time.monotonic(), time.clock_gettime(clock), delays.seconds()
        given.set()

    with place.open("a", buffering=1) as words:
        while True:
            time.sleep(_EVERY)
            given.clear()
            delays = Delays([os.getpid()], threading.get_native_id())
            asked, clocked = time.monotonic(), time.clock_gettime(clock)
            try:
                loop.call_soon_threadsafe(turn, delays)
            except RuntimeError:  # it is closed
                return
            given.wait()
            waited, worked = after[0] - asked, after[1] - clocked
            words.write(f"{asked} {waited} {worked} {max(waited - after[2], worked)}\n")


if __name__ == "__main__":
    with_pulse(Path(sys.argv[1]))
    sys.argv = ["gateway", *sys.argv[2:]]

    from gateway.__main__ import main

    main()
