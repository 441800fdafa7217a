"""What the vendor found, on the image that it lies in: for those who may see whose it is. Each picture is
fetched from its archive when it is asked for, and forgotten some minutes later."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from aiohttp import web

from gateway.console.pages import Desk, Guard
from gateway.contract import Failure, Finding
from gateway.delivery.pictures import Picture, Pictures, findings_of, places_of
from gateway.delivery.shapes import outline, words
from gateway.intake.looks import Looks
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor
from gateway.jobs.records import Job

_KEPT = 8
_FOR = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finding as a line in the image's pixels; `at`: its only point, or where its words stand."""

    line: str
    is_point: bool
    at: tuple[float, float]
    words: str

    @classmethod
    def along(cls, line: Sequence[tuple[float, float]], words: str) -> Self:
        """Its words stand where the line is leftmost and topmost."""
        at = min((x for x, _ in line), default=0.0), min((y for _, y in line), default=0.0)
        return cls(" ".join(f"{x:.1f},{y:.1f}" for x, y in line), len(line) == 1, at, words)


class PicturePage:
    def __init__(self, desk: Desk, pictures: Pictures) -> None:
        self._desk = desk
        self._pictures = pictures
        self._looks = Looks(desk.store, "console")
        self._known: OrderedDict[tuple[UUID, int], tuple[float, Picture]] = OrderedDict()
        self._drawing = asyncio.Lock()

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/jobs/{id}/pictures/{number}", guard("operator", self._show)),
            web.get("/jobs/{id}/pictures/{number}/image", guard("operator", self._give)),
        ]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        job, number, places = await self._find(request)
        await self._looks.note(visitor.name, job.id)
        here = places[number - 1]
        picture, trouble = None, ""
        try:
            picture = await self._draw(job, number, here[0])
        except Failure as failure:
            trouble = failure.sentences
        return self._desk.show(
            visitor,
            "picture.html",
            "jobs",
            job=job,
            title=f"Picture {number} of {len(places)}",
            image="" if picture is None else f"/jobs/{job.id}/pictures/{number}/image",
            tiles=None,
            columns=0 if picture is None else picture.columns,
            rows=0 if picture is None else picture.rows,
            trouble=trouble,
            instead="",
            drawn=[] if picture is None else _outlines(here, picture),
            findings=[words(each) for each in here],
            whence=job.archive,
            before=f"/jobs/{job.id}/pictures/{number - 1}" if number > 1 else "",
            after=f"/jobs/{job.id}/pictures/{number + 1}" if number < len(places) else "",
        )

    async def _give(self, request: web.Request, visitor: Visitor) -> web.Response:
        job, number, places = await self._find(request)
        await self._looks.note(visitor.name, job.id)
        try:
            picture = await self._draw(job, number, places[number - 1][0])
        except Failure as failure:
            raise Problem(502, failure.sentences) from None
        unkept = {"Cache-Control": "no-store"}
        return web.Response(body=picture.jpeg, content_type="image/jpeg", headers=unkept)

    async def _find(self, request: web.Request) -> tuple[Job, int, Sequence[Sequence[Finding]]]:
        told = request.match_info["number"]
        try:
            job = await self._desk.store.get(UUID(request.match_info["id"]))
        except ValueError:
            job = None
        places = [] if job is None else places_of(findings_of(job))
        number = int(told) if told.isdecimal() and len(told) < 6 else 0
        if job is None or not 1 <= number <= len(places):
            raise Problem(404, "there is no such picture; the job's page says what was found")
        return job, number, places

    async def _draw(self, job: Job, number: int, first: Finding) -> Picture:
        """The page and its image ask for it one after the other."""
        key = (job.id, number)
        async with self._drawing:
            now = time.monotonic()
            for old in [each for each, (since, _) in self._known.items() if now - since > _FOR]:
                del self._known[old]
            if key not in self._known:
                self._known[key] = now, await self._pictures.draw(job, first)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return self._known[key][1]


def _outlines(findings: Sequence[Finding], picture: Picture) -> list[Drawn]:
    lines = [(outline(finding, picture.columns, picture.rows), words(finding)) for finding in findings]
    return [Drawn.along(line, said) for line, said in lines if line]
