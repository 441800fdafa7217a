"""Audit: who did what, the newest first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from gateway.console import wording
from gateway.console.pages import Desk, Guard
from gateway.intake.problems import Problem
from gateway.intake.shapes import moment
from gateway.intake.visits import Visitor
from gateway.jobs.store.acts import ActFilter

_PAGE = 100
_LONGEST = 200
_NAMES = ("who", "what", "job", "since")
_SAID = {"who": "by {}", "what": "{}", "job": "job {}", "since": "since {}"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """As the address has it; what isn't asked for isn't there."""

    values: Mapping[str, str]

    def one(self, name: str) -> str:
        return self.values.get(name, "")

    def but(self, **others: object) -> str:
        """The address of the same with something else, from its newest on."""
        asked = {name: value for name, value in {**self.values, **others}.items() if value}
        return f"/audit?{urlencode(asked)}" if asked else "/audit"

    def chips(self) -> list[tuple[str, str]]:
        """Each thing asked for in words, and the address without it."""
        return [(_SAID[name].format(value), self.but(**{name: ""})) for name, value in self.values.items()]


class Audit:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.get("/audit", guard("operator", self._show))]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        given = {name: request.query.get(name, "").strip()[:_LONGEST] for name in _NAMES}
        wanted = Wanted({name: value for name, value in given.items() if value})
        before = request.query.get("before", "")
        if before and not re.fullmatch("[0-9]{1,18}", before):
            raise Problem(422, "this address isn't one that a page of the audit led to")
        last = int(before) if before else None
        asked = await self._read(wanted)
        found = await self._desk.store.find_acts(asked, limit=_PAGE + 1, before=last) if asked else []
        return self._desk.show(
            visitor,
            "audit.html",
            "audit",
            acts=found[:_PAGE],
            more=found[_PAGE - 1].id if len(found) > _PAGE else None,
            wanted=wanted,
            called=partial(wording.name_peer, self._desk.settings),
            before=before,
            address=request.path_qs,
        )

    async def _read(self, wanted: Wanted) -> ActFilter | None:
        """None: it names a job that there isn't."""
        named: dict[str, Any] = {name: [wanted.one(name)] for name in ("who", "what") if wanted.one(name)}
        try:
            named["since"] = moment(wanted.one("since") or None)
        except ValueError as problem:
            raise Problem(422, f"since: {problem}") from None
        if not wanted.one("job"):
            return ActFilter(**named)
        job_id = await self._find_job(wanted.one("job"))
        return None if job_id is None else ActFilter(**named, job_id=job_id)

    async def _find_job(self, given: str) -> UUID | None:
        """By its whole id, also of one that is purged, or by a shortened one as this page shows it."""
        digits = given.replace("-", "")
        if not re.fullmatch("[0-9a-fA-F]{4,32}", digits):
            raise Problem(422, "a job is named here by its id, or by its first letters and digits")
        if len(digits) == len(UUID(int=0).hex):
            return UUID(digits)
        begun = await self._desk.store.find_by_prefix(digits)
        if len(begun) > 1:
            raise Problem(422, "several jobs begin like this: give more of the id")
        return begun[0] if begun else None
