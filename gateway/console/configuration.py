"""Configuration: what is in force, and since when; what each revision changed. Secrets stay masked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from gateway.console.pages import Desk, Guard
from gateway.intake.visits import Visitor
from gateway.jobs.store.revisions import Revision

_MOST = 30
_AROUND = 2
_KINDS: dict[str, Literal["put", "taken", "same"]] = {"+": "put", "-": "taken", " ": "same"}


@dataclass(frozen=True, slots=True)
class Line:
    kind: Literal["put", "taken", "same", "place"]
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """Against the last one before it that was in force, if any is known. `lines`: with a few around."""

    revision: Revision
    before: Revision | None
    lines: Sequence[Line]

    def number(self, kind: str) -> int:
        return sum(line.kind == kind for line in self.lines)


class Configuration:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/configuration", guard("operator", self._show))]

    async def _show(self, _: web.Request, visitor: Visitor) -> web.Response:
        known = await self._desk.store.revisions(limit=_MOST + 1)
        return self._desk.show(
            visitor,
            "configuration.html",
            "configuration",
            in_force=next((each for each in known if not each.refused), None),
            refused=known[0] if known and known[0].refused else None,
            changes=_tell_changes(known)[:_MOST],
        )


def _tell_changes(known: Sequence[Revision]) -> list[Change]:
    changes = []
    for place, revision in enumerate(known):
        before = next((each for each in known[place + 1 :] if not each.refused), None)
        lines = [] if before is None else list(_compare(before.text, revision.text))
        changes.append(Change(revision, before, lines))
    return changes


def _compare(before: str, after: str) -> Iterator[Line]:
    told = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=_AROUND)
    for line in list(told)[2:]:
        found = re.match(r"@@ -\S+ \+([0-9]+)", line)
        yield Line("place", f"from line {found[1]}") if found else Line(_KINDS[line[0]], line[1:])
