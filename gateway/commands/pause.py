"""gateway pause, gateway unpause."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gateway.commands.jobs import who_asks
from gateway.commands.opening import FAILED, WRONG_USE, complain, go, read_settings_to_act, store_of
from gateway.jobs.store.pauses import write_unpause
from gateway.nearest import did_you_mean

_LONGEST = 200
Kind = Literal["application", "adapter", "destination"]


def pause(config: Path | None, kind: Kind, name: str, why: str | None) -> int:
    """Without a `why` it is unpaused."""
    if why is not None and not (why.isprintable() and 0 < len(why) <= _LONGEST):
        complain(f"--why takes one line of {_LONGEST} characters at the most")
        return WRONG_USE
    settings = read_settings_to_act(config)
    known: Mapping[Kind, Mapping[str, object]] = {
        "application": settings.applications,
        "adapter": settings.adapters,
        "destination": settings.destinations,
    }
    if name not in known[kind]:
        listed = f"{', '.join(sorted(known[kind])) or 'none'}{did_you_mean(name, known[kind])}"
        complain(f"no {kind} is configured as {name}; there are: {listed}")
        return FAILED
    peer = f"{kind}s.{name}"

    act = "unpause" if why is None else "pause"

    async def work() -> int:
        async with store_of(settings, f"to {act} {kind} {name}", acts=True) as store:
            if why is None:
                changed = await store.unpause(peer, who_asks())
                print(f"{name} goes on" if changed else f"{name} wasn't paused")
            else:
                changed = await store.pause(peer, why, who_asks())
                said = f"{name} {'is paused' if changed else 'was paused already'}"
                print(f"{said}; {write_unpause(peer)} lets it go on")
        return 0

    return go(work())
