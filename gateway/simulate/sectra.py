"""The Sectra Pathology Server's callback side, strict about versions, tokens, fields and types."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from gateway.simulate import slides
from gateway.simulate.front import build_front
from gateway.simulate.multipart import close_parts, make_boundary
from gateway.simulate.sectra_control import add_control
from gateway.simulate.sectra_messages import ChangedQuality, ChangedResult, NewResult, Strict
from gateway.simulate.sectra_state import (
    BASE,
    PASSWORD,
    STATE,
    USERNAME,
    SectraState,
    Stored,
    Token,
    parse_version,
)
from gateway.simulate.slides import Slide

TOKEN = web.RequestKey("token", Token)
Model = TypeVar("Model", bound=Strict)


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _check_token(request: web.Request, state: SectraState) -> None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    token = state.use_token(value) if scheme == "Bearer" else None
    if token is None:
        raise Refusal(401, "The token is missing, unknown or has expired.")
    request[TOKEN] = token


def _check_versions(request: web.Request, state: SectraState) -> None:
    version = request.headers.get("X-Sectra-ApiVersion", "")
    if not re.fullmatch(r"\d+\.\d+", version):
        raise Refusal(400, "X-Sectra-ApiVersion is missing or isn't a version.")
    if not request.headers.get("X-Sectra-SoftwareVersion"):
        raise Refusal(400, "X-Sectra-SoftwareVersion is missing.")
    if parse_version(version) > parse_version(state.settings.api_version):
        raise Refusal(400, f"API version {version} is newer than this server's {state.settings.api_version}.")


@web.middleware
async def _stand_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """/info tells the versions, so it can't ask for them; /token has a password instead of a token."""
    state, call = request.app[STATE], request.path.removeprefix(BASE)
    if call == request.path:
        return await handler(request)
    try:
        if call != "/token":
            _check_token(request, state)
        if call not in ("/token", "/info"):
            _check_versions(request, state)
        answer = await handler(request)
    except Refusal as refusal:
        answer = _refuse(refusal.status, str(refusal))
    except web.HTTPException as refusal:
        answer = _refuse(refusal.status, refusal.reason)
    if not answer.prepared:
        answer.headers.update(state.headers)
    return answer


async def _parse(request: web.Request, kind: type[Model]) -> tuple[Model, dict[str, Any]]:
    if request.content_type != "application/json":
        raise Refusal(415, "The body has to be application/json.")
    body = await request.read()
    try:
        return kind.model_validate_json(body), json.loads(body)
    except ValidationError as wrong:
        found = wrong.errors(include_input=False, include_url=False)
        status = 400 if found[0]["type"] == "json_invalid" else 422
        places = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:5]]
        raise Refusal(status, "; ".join(places)) from None


def _find_slide(request: web.Request) -> Slide:
    slide = request.app[STATE].find_slide(request.match_info["slide"])
    if slide is None:
        raise Refusal(404, "No such slide.")
    return slide


def _read_flag(request: web.Request, name: str) -> bool:
    value = request.query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise Refusal(400, f"{name} has to be true or false.")
    return value == "true"


async def _get_info(request: web.Request) -> web.Response:
    settings = request.app[STATE].settings
    return web.json_response(
        {"apiVersion": settings.api_version, "softwareVersion": settings.software_version}
    )


async def _get_slide(request: web.Request) -> web.Response:
    state, slide = request.app[STATE], _find_slide(request)
    scope = request.query.get("scope", "default")
    if scope not in ("default", "extended"):
        raise Refusal(400, "The only scope is extended.")
    extended = scope == "extended"
    info = slides.describe(slide, extended=extended, phi=_read_flag(request, "includePHI"))
    if extended and state.offers("1.10"):
        info["qualityControl"] = state.read_quality(slide.id)
    return web.json_response(info)


async def _get_label(request: web.Request) -> web.Response:
    slide = _find_slide(request)
    if not slide.label:
        return web.Response(status=204)
    return web.Response(body=slides.make_label(slide), content_type="image/jpeg")


async def _send_single(request: web.Request, file: slides.File) -> web.StreamResponse:
    wanted = request.http_range
    start, stop, _ = slice(wanted.start, wanted.stop).indices(file.size)
    if start >= stop:
        raise Refusal(416, "The range lies outside the file.")
    partial = wanted.start is not None or wanted.stop is not None
    answer = web.StreamResponse(status=206 if partial else 200, headers=request.app[STATE].headers)
    answer.headers["Content-Disposition"] = f'attachment; filename="{file.name}"'
    answer.headers["Accept-Ranges"] = "bytes"
    if partial:
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    answer.content_type, answer.content_length = "application/octet-stream", stop - start
    await answer.prepare(request)
    for piece in file.read(start, stop):
        await answer.write(piece)
    return answer


async def _get_files(request: web.Request) -> web.StreamResponse:
    state, slide = request.app[STATE], _find_slide(request)
    files = slides.list_files(slide)
    if slide.single_file:
        return await _send_single(request, files[0])
    boundary = make_boundary()
    kind = "multipart/form-data" if state.settings.form_data else "multipart/related"
    headers = {"Content-Type": f"{kind}; boundary={boundary}", **state.headers}
    answer = web.StreamResponse(headers=headers)
    await answer.prepare(request)
    for file in files:
        name = f'Content-Disposition: attachment; filename="{file.name}"'
        head = f"--{boundary}\r\n{name}\r\nContent-Type: application/octet-stream\r\n\r\n"
        await answer.write(head.encode())
        for piece in file.read(0, file.size):
            await answer.write(piece)
        await answer.write(b"\r\n")
    await answer.write(close_parts(boundary))
    return answer


async def _get_tile(request: web.Request) -> web.Response:
    slide, asked = _find_slide(request), request.match_info
    plane, path = int(asked["plane"].lstrip("_") or 0), request.query.get("opticalPath", "0")
    if plane >= slide.focal_planes or path != "0":
        raise Refusal(404, "No such focal plane or optical path.")
    place = int(asked["level"]), int(asked["column"]), int(asked["row"])
    tile = await asyncio.to_thread(slides.make_tile, slide, *place, asked["extension"])
    if tile is None:
        raise Refusal(404, "No such tile.")
    return web.Response(body=tile, content_type=slides.KINDS[asked["extension"]])


def _describe_case(request: web.Request, accession: str | None, alone: Slide | None = None) -> web.Response:
    state, phi = request.app[STATE], _read_flag(request, "includePHI")
    if not state.offers("1.9"):
        raise Refusal(404, "Case images came with API version 1.9.")
    if unknown := set(request.query) - {"includePHI", state.settings.issuer}:
        raise Refusal(400, f"There is no parameter {min(unknown)}.")
    if request.query.get(state.settings.issuer, "SIMULATED") != "SIMULATED":
        raise Refusal(404, "No such case.")
    members = [each for each in state.slides.values() if accession and each.accession_number == accession]
    members = members or ([alone] if alone else [])
    if not members:
        raise Refusal(404, "No such case.")
    return web.json_response([slides.describe_in_case(each, phi=phi) for each in members])


async def _get_case(request: web.Request) -> web.Response:
    return _describe_case(request, request.match_info["accession"])


async def _get_case_of_slide(request: web.Request) -> web.Response:
    slide = _find_slide(request)
    return _describe_case(request, slide.accession_number, slide)


def _check_application(request: web.Request) -> str:
    state, application = request.app[STATE], request.match_info["app"]
    if request.path.startswith(BASE + "/hooks/") != state.settings.hooks:
        raise Refusal(404, "No such path on this version of the server.")
    if request[TOKEN].application_id not in ("", application):
        raise Refusal(403, "The token was given to another application.")
    return application


def _find_result(request: web.Request) -> Stored:
    application = _check_application(request)
    stored = request.app[STATE].results.get(int(request.match_info["id"]))
    if stored is None or stored.application_id != application:
        raise Refusal(404, "No such result.")
    return stored


async def _post_result(request: web.Request) -> web.Response:
    state, application = request.app[STATE], _check_application(request)
    result, body = await _parse(request, NewResult)
    if state.find_slide(result.slideId) is None:
        raise Refusal(404, "No such slide.")
    return web.json_response(state.store(application, result, body), status=state.settings.created)


async def _get_result(request: web.Request) -> web.Response:
    return web.json_response(_find_result(request).body)


async def _get_results(request: web.Request) -> web.Response:
    application, slide = _check_application(request), _find_slide(request)
    return web.json_response(request.app[STATE].list_results(application, slide.id))


async def _put_result(request: web.Request) -> web.Response:
    state, stored = request.app[STATE], _find_result(request)
    result, body = await _parse(request, ChangedResult)
    if result.versionId != stored.body["versionId"]:
        raise Refusal(state.settings.stale, "The result has changed meanwhile: its versionId is another.")
    if result.slideId != stored.body["slideId"] or result.id not in (None, stored.body["id"]):
        raise Refusal(400, "A result can't move to another slide or id.")
    return web.json_response(state.replace(stored, result, body))


async def _put_quality(request: web.Request) -> web.Response:
    state, slide = request.app[STATE], _find_slide(request)
    if not state.offers("1.10"):
        raise Refusal(404, "Quality control came with API version 1.10.")
    change, _ = await _parse(request, ChangedQuality)
    current = state.read_quality(slide.id)
    if change.qualityControl.versionId != current["versionId"]:
        raise Refusal(
            state.settings.stale, "The quality control has changed meanwhile: its versionId is another."
        )
    del state.quality[slide.id]
    state.read_quality(slide.id)["status"] = change.qualityControl.status
    return web.Response(status=200)


async def _post_token(request: web.Request) -> web.Response:
    state = request.app[STATE]
    expected = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    if request.headers.get("Authorization") != expected:
        raise Refusal(401, "Wrong username or password.")
    if not request.query.get("applicationId"):
        raise Refusal(400, "applicationId is missing.")
    if (await request.post()).get("grant_type") != "client_credentials":
        raise Refusal(400, "grant_type has to be client_credentials.")
    token = state.mint(request.query["applicationId"])
    names = ("access_token", "token_type", "expires_in")
    if state.settings.camel_case:
        names = ("accessToken", "tokenType", "expiresIn")
    values = (token, "Bearer", int(state.settings.token_seconds))
    return web.json_response(dict(zip(names, values, strict=True)))


def make_app(state: SectraState | None = None) -> web.Application:
    state = state or SectraState()
    app = build_front(state.front)
    app.middlewares.append(_stand_guard)
    app[STATE] = state
    get, post, put = app.router.add_get, app.router.add_post, app.router.add_put
    get(BASE + "/info", _get_info)
    get(BASE + "/slides/{slide}/info", _get_slide)
    get(BASE + "/slides/{slide}/label", _get_label)
    get(BASE + "/slides/{slide}/files", _get_files)
    get(BASE + "/slides/{slide}/request/images/info", _get_case_of_slide)
    put(BASE + "/slides/{slide}/qualityControl", _put_quality)
    get(BASE + "/requests/{accession}/images/info", _get_case)
    tile = r"/images/{slide}_files/{level:\d+}/{column:\d+}_{row:\d+}{plane:(_\d+)?}.{extension}"
    get(BASE + tile, _get_tile)
    for kind in ("applications", "hooks"):
        results = f"{BASE}/{kind}/{{app}}/results"
        post(results, _post_result)
        get(results + "/slide/{slide}", _get_results)
        get(results + r"/{id:\d+}", _get_result)
        put(results + r"/{id:\d+}", _put_result)
    post(BASE + "/token", _post_token)
    add_control(app)
    return app
