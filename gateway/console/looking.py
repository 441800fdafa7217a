"""Looking at a peer again at once, since somebody says that it is mended; and what came of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlencode

from aiohttp import web

from gateway.console import wording
from gateway.console.pages import Desk
from gateway.intake.peers import with_quota
from gateway.jobs.store import Store
from gateway.jobs.store.circuits import Circuit

Outcome = Literal["back", "still", "tried", "unanswered"]

NAMES = ("looked", "peer", "at")  # in an address
_PATIENCE = 12.0  # a look has ten seconds
_PAUSE = 0.1


async def look_again(store: Store, peer: str, who: str) -> str:
    """What came of it, as the address of the page that tells it has it."""
    before = await _away(store, peer)
    for each in before:
        await store.look_now(each, who)
    outcome, give_up = _compare(before, before), time.monotonic() + _PATIENCE
    while outcome == "unanswered" and time.monotonic() < give_up:
        await asyncio.sleep(_PAUSE)
        outcome = _compare(before, await _away(store, peer))
    return urlencode({"looked": outcome, "peer": peer, "at": int(time.time())})


async def read_look(desk: Desk, request: web.Request) -> tuple[str, bool] | None:
    """What came of it in a sentence, and whether that is good; for as long as it is so."""
    outcome, peer, at = (request.query.get(name, "") for name in NAMES)
    if outcome not in ("back", "still", "tried", "unanswered") or not re.fullmatch(r"\d{1,11}", at):
        return None
    away = await _away(desk.store, peer)
    if (outcome == "back") == bool(away):
        return None
    name, looked = wording.name_peer(desk.settings, peer), datetime.fromtimestamp(int(at), UTC)
    looked_at = f"{wording.clock(looked)}:{looked:%S}"
    match outcome:
        case "back":
            return f"Looked {looked_at}: {name} answers again", True
        case "still":
            [words, *_] = map(wording.ailing, away.values())
            return f"Looked {looked_at}, and it is so still: {name} {words}", False
        case "tried":
            return f"Looked {looked_at}: one of the jobs that wait for {name} tries it now", False
        case _:
            return f"Asked {looked_at} to look at {name}: there is no answer yet", False


async def _away(store: Store, peer: str) -> Mapping[str, Circuit]:
    known = with_quota(peer)
    return {each.peer: each for each in await store.circuits() if each.peer in known and each.is_open}


def _compare(before: Mapping[str, Circuit], now: Mapping[str, Circuit]) -> Outcome:
    if not now:
        return "back"
    looked = [
        each
        for name, each in now.items()
        if name not in before or (each.number, each.probes) != (before[name].number, before[name].probes)
    ]
    if any(each.trial_job for each in looked):
        return "tried"
    return "still" if looked else "unanswered"
