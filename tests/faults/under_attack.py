"""Whether the gateway goes on serving while somebody attacks it, and what that costs.

    async def flood() -> None: ...                       # ends by itself, or is ended after `seconds`

    figures = await withstand(house, flood, "a flood of silence")

While the attack goes on, /healthz is asked and users invoke the application from a slide, each over a
connection of its own, the process is weighed, and its event loop's pulse is felt. What is asserted is that
all were answered, that the memory held, that the loop left nobody standing for a second, and that the gateway
owed /healthz no second and a user no three: all of it without the time in which the machine had no processor
for the gateway, its database and those who ask, since a busy machine is no defect. How fast it was by the
clock is printed, and told in the figures. An attack that works the processor hard runs in a thread or a
process, or it slows the asking down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from tests.peers.gateway import PATIENCE, Hospital
from tests.peers.pulse import Delays, family, feel, pulses

MOST_MEMORY = 500.0  # MiB
MOST_STALL = 1.0  # seconds in which the event loop gives nobody a turn
MOST_OWED_TO_HEALTH = 1.0  # seconds that /healthz waits for the gateway itself
MOST_OWED = 3.0  # the same of a user
_SLIDES = count(1)


@dataclass
class Figures:
    """Seconds of each answer, and `owed` of it by us, to /healthz and to a user; `stall`: of the event loop;
    `memory`: the most it took, in MiB."""

    attack: str
    health: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    owed: list[float] = field(default_factory=list)
    owed_to_health: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    memory: float = 0.0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = [
            f"{name} {_told(times)}"
            for name, times in (
                ("stall", self.stall),
                ("owed to healthz", self.owed_to_health),
                ("owed to a user", self.owed),
                ("healthz", self.health),
                ("create", self.create),
            )
        ]
        return f"under attack by {self.attack}: {'; '.join(told)}; {self.memory:.0f} MiB {self.refused or ''}"


async def withstand(
    house: Hospital, attack: Callable[[], Awaitable[object]], name: str, *, seconds: float = 20.0
) -> Figures:
    figures = Figures(name)
    pid = house.gateway.process.pid
    _forget_peak(pid)
    feel(pid)
    began = time.monotonic()
    under_way = asyncio.ensure_future(asyncio.wait_for(attack(), seconds))
    await asyncio.sleep(0.1)
    await asyncio.gather(_ask_health(house, figures, under_way), _invoke(house, figures, under_way))
    with suppress(TimeoutError):
        await under_way
    figures.memory = _peak(pid)
    felt = pulses(house.gateway.words, began, time.monotonic())
    figures.stall = [pulse.stalled for pulse in felt]
    print(f"\n{figures}")
    assert figures.refused == [], figures
    assert figures.health and figures.create, "nobody was served before the attack was over"
    assert figures.stall, "its pulse wasn't felt"
    assert figures.memory < MOST_MEMORY, figures
    assert max(figures.stall) < MOST_STALL, max(felt, key=lambda pulse: pulse.stalled)
    assert max(figures.owed_to_health) < MOST_OWED_TO_HEALTH, figures
    assert max(figures.owed) < MOST_OWED, figures
    return figures


async def knock(
    house: Hospital, address: str = "127.0.0.2"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection to the doors, from an address of this machine that isn't the users'."""
    where = urlsplit(house.gateway.url)
    return await asyncio.open_connection(where.hostname, where.port, local_addr=(address, 0))


async def _ask_health(house: Hospital, figures: Figures, attack: asyncio.Future[object]) -> None:
    while not figures.health or not attack.done():
        began, delays = time.monotonic(), Delays(family())
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as fresh,
                fresh.get(f"{house.gateway.url}/healthz") as response,
            ):
                assert response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError, AssertionError) as trouble:
            figures.refused.append(f"healthz: {type(trouble).__name__}")
            return
        figures.health.append(time.monotonic() - began)
        figures.owed_to_health.append(max(0.0, figures.health[-1] - delays.seconds()))
        await asyncio.sleep(0.1)


async def _invoke(house: Hospital, figures: Figures, attack: asyncio.Future[object]) -> None:
    while not figures.create or not attack.done():
        slide = f"slide-under-attack-{next(_SLIDES)}"
        house.show(slide)
        began, delays = time.monotonic(), Delays(family())
        answer = await house.fire(slide)
        if answer.status != 200 or answer.complaints:
            figures.refused.append(f"create: {answer.status} {answer.complaints}")
            return
        figures.create.append(time.monotonic() - began)
        figures.owed.append(max(0.0, figures.create[-1] - delays.seconds()))
        await asyncio.sleep(0.3)


def _told(times: list[float]) -> str:
    return f"{len(times)} in at most {max(times):.2f} s" if times else "never"


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid: int) -> float:
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024
