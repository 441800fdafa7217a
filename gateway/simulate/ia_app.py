"""A vendor's IA-API app for tissue: it looks through a slide tile by tile, and frames the densest nuclei.

It behaves as the public SDK's background example: "analysis queued" with a frame around the whole slide at
once, the same result updated as the work goes on, and replaced by the real one at the end.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from PIL import Image

from gateway.simulate.front import Front, build_front
from gateway.simulate.tissue import Pixels

OWN_NAME = "nuclei"
VERSIONS = {"X-Sectra-ApiVersion": "1.8", "X-Sectra-SoftwareVersion": "0.9"}
FINAL = "dense nuclei"
LIMITS = aiohttp.ClientTimeout(total=30)
GLASS_FROM = 225  # brighter, in the mean of all colours, is glass
VIOLET_BELOW = 120  # of green
CELLS, MOST_AREAS = 16, 4  # cells along a slide's width, and how many of them are framed


@dataclass(slots=True)
class IaAppState:
    front: Front = field(default_factory=Front)
    works: set[asyncio.Task[None]] = field(default_factory=set)


STATE = web.AppKey("ia-app", IaAppState)


@dataclass(slots=True)
class Callback:
    """What the invocation allows: its slide, and its results there."""

    session: aiohttp.ClientSession
    url: str
    token: str
    slide: str
    application: str

    async def call(self, method: str, path: str, body: object = None) -> bytes:
        headers = VERSIONS | {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(
            method, f"{self.url}/{path}", headers=headers, json=body, raise_for_status=True
        ) as answer:
            return await answer.read()

    async def call_json(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(await self.call(method, path, body))

    async def store(self, result: dict[str, Any]) -> dict[str, Any]:
        """Changes the last result of its own, since an app can't delete one."""
        results = f"applications/{self.application}/results"
        existing = await self.call_json("GET", f"{results}/slide/{self.slide}")
        if existing:
            latest = existing[-1] | result
            stored = await self.call_json("PUT", f"{results}/{latest['id']}", latest)
        else:
            stored = await self.call_json("POST", results, result)
        return dict(stored)


def describe(callback: Callback, text: str, properties: dict[str, Any], shapes: list[Any]) -> dict[str, Any]:
    return {
        "slideId": callback.slide,
        "displayResult": text,
        "displayProperties": properties,
        "applicationVersion": "0.9",
        "data": {"context": {}, "result": {"type": "primitive", "content": shapes}},
    }


def frame(box: tuple[float, float, float, float], label: str, colour: str) -> dict[str, Any]:
    left, upper, right, lower = box
    corners = [(left, upper), (right, upper), (right, lower), (left, lower)]
    return {
        "style": {"strokeStyle": colour, "fillStyle": None, "size": None},
        "polygons": [{"points": [{"x": x, "y": y} for x, y in corners]}],
        "polylines": [],
        "labels": [{"location": {"x": left, "y": upper}, "label": label}],
    }


async def read_tiles(callback: Callback, info: dict[str, Any]) -> AsyncIterator[tuple[int, int, Pixels]]:
    """Of the largest level that is at most 1024 pixels wide, each with its place in pixels."""
    width, height = info["imageSize"]["width"], info["imageSize"]["height"]
    size, top = info["tileSize"]["width"], (max(width, height) - 1).bit_length()
    shift = max(0, (width - 1).bit_length() - 10)
    across, down = (math.ceil(length / 2**shift / size) for length in (width, height))
    for row in range(down):
        for column in range(across):
            path = f"images/{callback.slide}_files/{top - shift}/{column}_{row}.jpg"
            picture = Image.open(io.BytesIO(await callback.call("GET", path)))
            yield column * size, row * size, np.asarray(picture.convert("RGB"))


async def analyse(callback: Callback) -> dict[str, Any]:
    info = await callback.call_json("GET", f"slides/{callback.slide}/info?scope=extended")
    pieces = [piece async for piece in read_tiles(callback, info)]
    wide = max(left + pixels.shape[1] for left, _, pixels in pieces)
    high = max(upper + pixels.shape[0] for _, upper, pixels in pieces)
    slide = np.full((high, wide, 3), 255, dtype=np.uint8)
    for left, upper, pixels in pieces:
        slide[upper : upper + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    tissue, nuclei = slide.mean(axis=2) < GLASS_FROM, slide[..., 1] < VIOLET_BELOW
    cell = wide // CELLS
    shares = {
        (x, y): float(nuclei[y : y + cell, x : x + cell].mean())
        for y in range(0, high - cell + 1, cell)
        for x in range(0, wide - cell + 1, cell)
        if tissue[y : y + cell, x : x + cell].mean() > 0.8
    }
    densest = sorted(shares, key=lambda place: -shares[place])[:MOST_AREAS]
    frames = [
        frame(
            (x / wide, y / wide, (x + cell) / wide, (y + cell) / wide),
            f"nuclei {shares[x, y]:.0%}",
            "#00A0FF",
        )
        for x, y in densest
    ]
    properties = {
        "Tissue": f"{tissue.mean():.0%}",
        "Nuclei in tissue": f"{nuclei.sum() / max(1, tissue.sum()):.0%}",
    }
    return describe(callback, f"{len(frames)} areas of {FINAL}", properties, frames)


async def work(callback: Callback) -> None:
    try:
        await callback.store(await analyse(callback))
    except (aiohttp.ClientError, TimeoutError):
        pass  # whoever invoked it sees "queued" for as long as they are willing to wait
    finally:
        await callback.session.close()


def say(data: object) -> web.Response:
    return web.json_response(data, headers=VERSIONS)


async def register(request: web.Request) -> web.Response:
    return say(
        {
            "applicationId": OWN_NAME,
            "displayName": "Nuclei",
            "manufacturer": "Hospital in a box",
            "url": f"http://{request.host}{request.path}",
            "inputTemplate": {"type": "wholeSlide"},
            "context": {},
        }
    )


async def get_info(_: web.Request) -> web.Response:
    return say({"apiVersion": VERSIONS["X-Sectra-ApiVersion"], "softwareVersion": "0.9"})


async def invoke(request: web.Request) -> web.Response:
    body = await request.json()
    if body.get("action") not in ("create", "newImageFiles", None):
        return say([] if body["action"] == "cancel" else body.get("input") or {})
    state = request.app[STATE]
    called = body["callbackInfo"]
    session = aiohttp.ClientSession(timeout=LIMITS)
    callback = Callback(session, called["url"], called["token"], body["slideId"], body["applicationId"])
    queued = describe(
        callback,
        "analysis queued",
        {"Progress": "0 %"},
        [frame((0, 0, 1, 0.75), "analysis queued", "#FFA500")],
    )
    try:
        stored = await callback.store(queued)
    except (aiohttp.ClientError, TimeoutError):
        await session.close()
        raise web.HTTPInternalServerError from None
    task = asyncio.create_task(work(callback))
    state.works.add(task)
    task.add_done_callback(state.works.discard)
    return say({} if request.path.endswith("/imagenotification") else stored)


async def _stop(app: web.Application) -> None:
    for task in list(app[STATE].works):
        task.cancel()
    await asyncio.gather(*app[STATE].works, return_exceptions=True)


def make_app(state: IaAppState | None = None) -> web.Application:
    state = state or IaAppState()
    app = build_front(state.front)
    app[STATE] = state
    path = f"/ia/{OWN_NAME}"
    app.router.add_get(path, register)
    app.router.add_get(f"{path}/info", get_info)
    app.router.add_post(path, invoke)
    app.router.add_post(f"{path}/imagenotification", invoke)
    app.on_cleanup.append(_stop)
    return app
