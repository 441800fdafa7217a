"""A job's slide, by Sectra's tiles as long as Sectra lets us in, with what the vendor found drawn on it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway.archives.sectra import Slides
from gateway.console.pages import Desk, Guard
from gateway.console.picture import Drawn
from gateway.contract import Failure
from gateway.delivery.drawings import present
from gateway.delivery.pictures import findings_of, places_of
from gateway.intake.looks import Looks
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor
from gateway.jobs.records import Job
from gateway.sectra.client import SectraClient
from gateway.sectra.messages import ImageInfo
from gateway.sectra.results import PatchResult, Point, PrimitiveResult, ResultData
from gateway.sectra.tiles import extension_for
from gateway.work.results import from_json

_KEPT = 16
_FOR = 120.0  # seconds
_OVERVIEW = 1024
_MOST = 500  # drawings
_TILE = r"{level:\d{1,2}}/{column:\d{1,6}}_{row:\d{1,6}}"
_KINDS = {"png": "image/png", "bmp": "image/bmp", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class _Open:
    """Of a job's slide, for a while."""

    since: float
    job: Job
    slide_id: str
    client: SectraClient
    info: ImageInfo


class SlidePage:
    def __init__(self, desk: Desk, slides: Slides) -> None:
        self._desk = desk
        self._slides = slides
        self._looks = Looks(desk.store, "console")
        self._open: OrderedDict[UUID, _Open] = OrderedDict()

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/jobs/{id}/slide", guard("operator", self._show)),
            web.get("/jobs/{id}/slide/image", guard("operator", self._give_overview)),
            web.get(f"/jobs/{{id}}/slide/{_TILE}", guard("operator", self._give_tile)),
        ]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        job = await self._find(request)
        await self._looks.note(visitor.name, job.id)
        address, size, tile, trouble = f"/jobs/{job.id}/slide", None, None, ""
        seen = None
        try:
            seen = await self._look(job)
        except Failure as failure:
            trouble = failure.sentences
        if seen is not None:
            size, tile = seen.info.image_size, seen.info.tile_size
            trouble = "" if size and tile else "Sectra doesn't tell how large the slide is"
        columns, rows = (size.width, size.height) if size and tile else (0, 0)
        return self._desk.show(
            visitor,
            "picture.html",
            "jobs",
            job=job,
            title="The slide",
            image=f"{address}/image" if size and tile else "",
            tiles={"address": address, "size": tile.width} if size and tile else None,
            columns=columns,
            rows=rows,
            trouble=trouble,
            instead=f"/jobs/{job.id}/pictures/1" if trouble and places_of(findings_of(job)) else "",
            drawn=await self._drawn(seen, columns, rows) if seen is not None and columns else [],
            findings=[],
            whence=f"Sectra ({job.server})",
            before="",
            after="",
        )

    async def _give_overview(self, request: web.Request, visitor: Visitor) -> web.Response:
        seen = await self._look_again(request, visitor)
        try:
            jpeg = await seen.client.thumbnail(seen.slide_id, _OVERVIEW)
        except Failure as failure:
            raise Problem(502, failure.sentences) from None
        return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "no-store"})

    async def _give_tile(self, request: web.Request, visitor: Visitor) -> web.Response:
        seen = await self._look_again(request, visitor)
        level, column, row = (int(request.match_info[name]) for name in ("level", "column", "row"))
        extension = extension_for(seen.info)
        try:
            tile = await seen.client.tile(seen.slide_id, level, column, row, extension=extension)
        except Failure as failure:
            raise Problem(502, failure.sentences) from None
        kind = _KINDS.get(extension.lower(), "image/jpeg")
        return web.Response(body=tile, content_type=kind, headers={"Cache-Control": "no-store"})

    async def _find(self, request: web.Request) -> Job:
        try:
            job = await self._desk.store.get(UUID(request.match_info["id"]))
        except ValueError:
            job = None
        if job is None or job.slide_id is None:
            raise Problem(404, "there is no job of this id that is about a slide")
        return job

    async def _look_again(self, request: web.Request, visitor: Visitor) -> _Open:
        """For each of its tiles."""
        with suppress(ValueError):
            known = self._open.get(UUID(request.match_info["id"]))
            if known is not None and time.monotonic() - known.since < _FOR:
                await self._looks.note(visitor.name, known.job.id)
                return known
        job = await self._find(request)
        await self._looks.note(visitor.name, job.id)
        try:
            return await self._look(job)
        except Failure as failure:
            raise Problem(502, failure.sentences) from None

    async def _look(self, job: Job) -> _Open:
        slide = self._slides.of(job)
        if slide is None:
            raise Problem(404, "nobody in Sectra asked for this job: its slide can't be looked at from here")
        client = slide.client()
        seen = _Open(time.monotonic(), job, slide.slide_id, client, await client.slide_info(slide.slide_id))
        self._open[job.id] = seen
        self._open.move_to_end(job.id)
        while len(self._open) > _KEPT:
            self._open.popitem(last=False)
        return seen

    async def _drawn(self, seen: _Open, columns: int, rows: int) -> list[Drawn]:
        job = seen.job
        if job.result is None:
            return []
        finished = from_json(job.result, Path())
        if finished.placed is not None:
            data = await _read_placed(seen, finished.placed)
        else:
            images = await self._desk.store.instances_of(job.id)
            widths = {image.sop_instance_uid: image.width for image in images if image.width}
            data = ResultData.model_validate({"result": present(finished, (columns, rows), widths).data})
        return read_drawings(data, columns)[:_MOST]


async def _read_placed(seen: _Open, placed: Mapping[str, Any]) -> ResultData | None:
    """What the vendor itself has put on the slide, as it stands there now."""
    number = placed.get("id")
    if not isinstance(number, int):
        return None
    try:
        return (await seen.client.read_result(seen.job.application, number)).data
    except Failure:  # the slide is shown all the same
        return None


def read_drawings(data: ResultData | None, width: int) -> list[Drawn]:
    """What a result has drawn, in pixels of the slide."""
    result = None if data is None else data.result
    drawn: list[Drawn] = []
    if isinstance(result, PatchResult):
        half = result.content.patch_size / 2
        tags = dict(enumerate(result.content.tags))
        drawn += [_line(each.points, width, "", closed=True) for each in result.content.polygons]
        for patch in result.content.patches:
            x, y = patch.position.x * width, patch.position.y * width
            corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
            drawn.append(_closed(corners, tags.get(patch.tag, "")))
    elif isinstance(result, PrimitiveResult):
        for each in result.content:
            drawn += [_line(polygon.points, width, "", closed=True) for polygon in each.polygons]
            drawn += [_line(line.points, width, "") for line in each.polylines]
            lonely = not each.polygons and not each.polylines
            for label in each.labels:
                at = label.location.x * width, label.location.y * width
                drawn.append(Drawn("", lonely, at, label.label))
    return drawn


def _line(points: Sequence[Point], width: int, words: str, *, closed: bool = False) -> Drawn:
    line = [(point.x * width, point.y * width) for point in points]
    return _closed(line, words) if closed else Drawn.along(line, words)


def _closed(line: list[tuple[float, float]], words: str) -> Drawn:
    return Drawn.along([*line, *line[:1]], words)
