"""What Sectra itself doesn't have: reading and changing the simulated server from outside, and its page."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from gateway.simulate import slides
from gateway.simulate.firing import Fire, fire
from gateway.simulate.front import read_model
from gateway.simulate.sectra_state import STATE, Settings
from gateway.simulate.slides import Slide

PAGE = Path(__file__).with_name("sectra_page.html")
WIDEST = 1600


async def _post_fire(request: web.Request) -> web.Response:
    answer = await fire(request.app[STATE], await read_model(request, Fire))
    return web.json_response(answer.model_dump())


async def _get_results(request: web.Request) -> web.Response:
    return web.json_response(
        [
            {
                "applicationId": stored.application_id,
                "versions": stored.versions,
                "warnings": stored.warnings,
                "result": stored.body,
            }
            for stored in request.app[STATE].results.values()
        ]
    )


async def _get_firings(request: web.Request) -> web.Response:
    """What was invoked, with the tokens that were given away."""
    return web.json_response([asdict(firing) for firing in request.app[STATE].firings])


async def _put_settings(request: web.Request) -> web.Response:
    request.app[STATE].settings = await read_model(request, Settings)
    return web.json_response({})


async def _get_slides(request: web.Request) -> web.Response:
    state = request.app[STATE]
    known = [slide.model_dump(exclude={"files"}) for slide in state.slides.values()]
    return web.json_response({"slides": known, "apps": state.apps, "callback": state.url})


async def _put_slide(request: web.Request) -> web.Response:
    slide = await read_model(request, Slide)
    request.app[STATE].slides[slide.id] = slide
    return web.json_response({})


async def _get_thumbnail(request: web.Request) -> web.Response:
    slide = request.app[STATE].find_slide(request.match_info["slide"])
    width = int(request.match_info["width"])
    if slide is None or not 0 < width <= WIDEST:
        raise web.HTTPNotFound
    picture = await asyncio.to_thread(slides.make_thumbnail, slide, width)
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "max-age=600"})


async def _kill_tokens(request: web.Request) -> web.Response:
    request.app[STATE].kill_tokens()
    return web.json_response({})


async def _mint_token(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return web.json_response({"url": state.url, "token": state.mint(request.query.get("applicationId", ""))})


async def _show_page(request: web.Request) -> web.Response:  # noqa: ARG001 (a handler gets its request)
    page = await asyncio.to_thread(PAGE.read_text, "utf-8")
    return web.Response(text=page, content_type="text/html")


def add_control(app: web.Application) -> None:
    router = app.router
    router.add_get("/", _show_page)
    router.add_post("/control/fire", _post_fire)
    router.add_get("/control/results", _get_results)
    router.add_get("/control/firings", _get_firings)
    router.add_put("/control/settings", _put_settings)
    router.add_get("/control/slides", _get_slides)
    router.add_put("/control/slides", _put_slide)
    router.add_get(r"/control/slides/{slide}/{width:\d+}.jpg", _get_thumbnail)
    router.add_post("/control/kill-tokens", _kill_tokens)
    router.add_post("/control/mint-token", _mint_token)
