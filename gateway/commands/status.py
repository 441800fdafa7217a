"""gateway status: what the console's first page says, for those who have a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.commands.jobs import here
from gateway.commands.opening import complain, go, read_settings, store_of
from gateway.console import wording
from gateway.console.causes import Cause, tell_causes
from gateway.jobs.store.replicas import Replica

_SHOWN = ("sentence", "reason", "jobs", "advice", "command")


def status(config: Path | None, as_json: bool) -> int:
    settings = read_settings(config)

    async def look() -> int:
        async with store_of(settings, "to tell what is wrong") as store:
            causes, replicas = await tell_causes(settings, store), await store.replicas()
        if as_json:
            print(json.dumps({"causes": [_plain(each) for each in causes], "processes": len(replicas)}))
            return 0
        print("\n\n".join(map(_tell, causes)) or "all is well: there is nothing to do")
        complain(*_doubt(replicas))
        return 0

    return go(look())


def _tell(cause: Cause) -> str:
    waiting = f"; {wording.count(cause.jobs, 'job')} {'waits' if cause.jobs == 1 else 'wait'}"
    again = f"; next try {here(cause.next_at)}" if cause.next_at else ""
    more = (wording.in_full(cause.reason), wording.in_full(cause.advice), cause.command)
    since = f"since {here(cause.since)} ({wording.ago(cause.since)})"
    head = f"{cause.sentence} {since}{waiting if cause.list else ''}{again}"
    return "\n    ".join([head, *filter(None, more)])


def _doubt(replicas: Iterable[Replica]) -> Iterable[str]:
    if all(each.silent for each in replicas):
        yield "no process of the gateway gives a sign of life: nothing goes on until one runs (gateway run)"


def _plain(cause: Cause) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(cause).items() if name in _SHOWN}
    until = None if cause.next_at is None else cause.next_at.isoformat()
    return {**shown, "since": cause.since.isoformat(), "next_try": until}
