"""Calls an app as Sectra does (invocations, image notifications, registration), and judges its answers."""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.simulate import slides
from gateway.simulate.sectra_messages import AnsweredResult
from gateway.simulate.sectra_state import Firing, SectraState

Action = Literal["create", "modify", "cancel", "delete", "newImageFiles", "registration", "info"]
LIMITS = aiohttp.ClientTimeout(total=60, connect=5, sock_read=60)
SQUARE = {"points": [{"x": x, "y": y} for x, y in ((0.3, 0.2), (0.5, 0.2), (0.5, 0.4), (0.3, 0.4))]}
INPUTS: dict[str, dict[str, Any]] = {
    "wholeSlide": {"type": "wholeSlide"},
    "taggedPolygon": {
        "type": "taggedPolygon",
        "content": {"polygon": SQUARE, "tags": ["tumour", "stroma"], "tagIndex": 0},
    },
    "multiArea": {"type": "multiArea", "content": {"polygons": [SQUARE]}},
}


class Fire(BaseModel):
    """What is fired at which app. `input` is a ready one, or the name of a type to get an example of it."""

    model_config = ConfigDict(extra="forbid")

    url: str  # as it was registered
    applicationId: str  # noqa: N815
    slideId: str = ""  # noqa: N815
    action: Action = "create"
    input: dict[str, Any] | str | None = None
    context: dict[str, Any] | None = None
    cancellationToken: str | None = None  # noqa: N815
    resultId: int | None = None  # noqa: N815 (which result is modified or deleted; default: the last one)
    press: str | None = None  # the id of a patch gallery's button
    callbackUrl: str | None = None  # noqa: N815 (instead of the true one)
    tokenSeconds: float | None = None  # noqa: N815
    leaveOut: list[str] = []  # noqa: N815 (fields that the body shall lack)


class Answer(BaseModel):
    status: int  # 0: the app didn't answer
    headers: dict[str, str] = {}
    body: Any = None
    cancellationToken: str = ""  # noqa: N815
    complaints: list[str] = []  # what a strict Sectra would mind


class NothingToFire(ValueError):
    """The app has no result, or no running invocation, that the action could be about."""


def _pick_result(state: SectraState, shot: Fire) -> dict[str, Any]:
    found = [
        (number, stored)
        for number, stored in state.results.items()
        if stored.application_id == shot.applicationId
        and stored.body["slideId"] == shot.slideId
        and shot.resultId in (None, number)
    ]
    if not found:
        raise NothingToFire("The app has no such result on the slide.")
    result = copy.deepcopy(found[-1][1].body)
    if shot.press:
        content = result["data"]["result"]["content"]
        buttons = content.get("actions", []) if isinstance(content, dict) else []
        if shot.press not in [button["id"] for button in buttons]:
            raise NothingToFire("The result has no such button.")
        for button in buttons:
            button["state"] = int(button["id"] == shot.press)
    return result


def _pick_cancellation(state: SectraState, shot: Fire) -> str:
    if shot.cancellationToken or shot.action != "cancel":
        return shot.cancellationToken or uuid.uuid4().hex
    for firing in reversed(state.firings):
        if (firing.application_id, firing.slide_id) == (shot.applicationId, shot.slideId):
            return firing.cancellation_token
    raise NothingToFire("Nothing was invoked that could be cancelled.")


def _make_body(state: SectraState, shot: Fire) -> dict[str, Any]:
    body: dict[str, Any] = {
        "applicationId": shot.applicationId,
        "slideId": shot.slideId,
        "callbackInfo": {
            "url": shot.callbackUrl or state.url,
            "token": state.mint(shot.applicationId, shot.tokenSeconds),
        },
        "context": shot.context,
        "cancellationToken": _pick_cancellation(state, shot),
        "action": shot.action,
    }
    if shot.action == "newImageFiles":
        slide = state.find_slide(shot.slideId)
        if slide is None:
            raise NothingToFire("There is no such slide.")
        body["imageInfo"] = slides.describe(slide, extended=True, phi=False)
    if shot.action in ("create", "newImageFiles"):
        given = shot.input or "wholeSlide"
        body["input"] = INPUTS[given] if isinstance(given, str) else given
    if shot.action in ("modify", "delete"):
        body["input"] = shot.input or _pick_result(state, shot)
    return {key: value for key, value in body.items() if key not in shot.leaveOut}


def _complain(shot: Fire, answer: Answer) -> list[str]:
    names = {name.lower() for name in answer.headers}
    found = [
        f"{name} is missing"
        for name in ("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion")
        if name.lower() not in names
    ]
    if not 200 <= answer.status < 300:
        return [*found, f"status {answer.status}"]
    expected: dict[str, Any] = {"cancel": [], "delete": {}, "newImageFiles": {}}
    if shot.action in expected and answer.body != expected[shot.action]:
        found.append(f"the answer to {shot.action} has to be {json.dumps(expected[shot.action])}")
    if shot.action in ("create", "modify"):
        try:
            AnsweredResult.model_validate_json(json.dumps(answer.body))
        except ValidationError as wrong:
            found += [
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
                for each in wrong.errors(include_input=False, include_url=False)[:5]
            ]
    return found


async def fire(state: SectraState, shot: Fire) -> Answer:
    url = shot.url.rstrip("/")
    state.apps[shot.applicationId] = url
    asking = shot.action in ("registration", "info")
    try:
        body = None if asking else _make_body(state, shot)
    except NothingToFire as nothing:
        return Answer(status=0, complaints=[str(nothing)])
    if shot.action == "newImageFiles":
        url += "/imagenotification"
    if shot.action == "info":
        url += "/info"
    if body is not None and shot.action in ("create", "modify", "newImageFiles"):
        token = body.get("callbackInfo", {}).get("token", "")
        cancellation = str(body.get("cancellationToken", ""))
        state.firings.append(Firing(shot.applicationId, shot.slideId, token, cancellation))
    try:
        async with (
            aiohttp.ClientSession(timeout=LIMITS) as session,
            session.request("GET" if asking else "POST", url, json=body, headers=state.headers) as response,
        ):
            text = await response.text()
            answer = Answer(status=response.status, headers=dict(response.headers), body=text)
    except (aiohttp.ClientError, TimeoutError) as silence:
        return Answer(status=0, complaints=[f"the app didn't answer: {type(silence).__name__}"])
    try:
        answer.body = json.loads(text)
    except ValueError:
        answer.complaints.append("the answer isn't JSON")
    answer.cancellationToken = str((body or {}).get("cancellationToken", ""))
    answer.complaints += _complain(shot, answer)
    if shot.action == "delete" and answer.status == 200 and body is not None:
        state.results.pop(body["input"].get("id"), None)
    return answer
