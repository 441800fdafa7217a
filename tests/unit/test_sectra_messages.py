"""What is read from Sectra and what is sent to it, judged by the public client's own schemas."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter
from sectra_client.schemas import AdaptedResult, Registration, Result
from sectra_client.schemas import Invocation as TheirInvocation

from gateway.sectra import messages, results, shapes
from gateway.sectra.wire import BadMessage

CALL: dict[str, Any] = {
    "applicationId": "app",
    "slideId": "slide-1",
    "callbackInfo": {"url": "https://pacs.hospital/ia", "token": "secret-token"},
}
SQUARE = {"points": [{"x": 0, "y": 0}, {"x": 0.5, "y": 0}, {"x": 0.5, "y": 0.5}]}
NOWHERE = {"points": [{"x": float("nan")}]}
STORED: dict[str, Any] = {
    "id": 7,
    "versionId": "v1",
    "slideId": "slide-1",
    "displayResult": "3 areas",
    "displayProperties": {"Areas": 3, "Ki-67": 0.25, "Grade": "G2"},
    "applicationVersion": "1.0",
    "attachments": [{"name": "map.png", "state": "stored", "size": 12}],
    "data": {
        "context": {"seed": None, "n": 1},
        "result": {"type": "primitive", "content": [{"polygons": [SQUARE]}]},
    },
}
PATCHES = {
    "type": "patchCollection",
    "content": {
        "description": "mitoses",
        "polygons": [SQUARE],
        "patches": [{"tag": 0, "position": {"x": 0.1, "y": 0.2}, "sortKeyValue": 0.9}],
        "tags": ["mitosis"],
        "patchSize": 256,
        "magnification": 40,
        "statuses": {"allowVerify": {"value": True, "message": None}},
        "actions": [{"id": "again", "state": 1, "name": "Again", "tooltip": "Count again"}],
    },
}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "wholeSlide"},
        {"type": "taggedPolygon", "content": {"polygon": SQUARE, "tags": ["A", "B"], "tagIndex": 1}},
        {"type": "taggedPolygon", "content": {"polygon": SQUARE, "tags": None}},
        {"type": "multiArea", "content": {"polygons": [SQUARE, SQUARE]}},
    ],
)
def test_create_keeps_its_input_in_sectras_words(given: dict[str, Any]) -> None:
    body = {**CALL, "action": "create", "cancellationToken": "c", "context": None, "input": given, "new": [1]}
    read = messages.parse_invocation(body)
    assert isinstance(read, messages.Create)
    assert read.context == {}
    assert read.callback_info.token.get_secret_value() == "secret-token"
    assert "secret-token" not in repr(read)
    sent = read.to_wire()
    assert sent["new"] == [1]
    theirs = TypeAdapter(TheirInvocation).validate_python({**sent, "callbackInfo": CALL["callbackInfo"]})
    assert theirs.input.type.value == given["type"]


def test_the_least_that_is_accepted() -> None:
    assert (
        messages.parse_invocation({**CALL, "action": "create", "input": {"type": "wholeSlide"}}).context == {}
    )
    assert messages.parse_invocation(
        {"applicationId": "a", "slideId": "s", "action": "cancel", "context": None}
    ) == messages.Cancel(application_id="a", slide_id="s")
    deleted = messages.parse_invocation({**CALL, "action": "delete", "input": {"id": 1, "versionId": "2"}})
    assert isinstance(deleted, messages.Delete)
    assert deleted.input is not None
    assert deleted.input.slide_id == "slide-1"
    for action in ({}, {"action": None}, {"action": "newImageFiles"}):
        told = messages.parse_notification({**CALL, **action, "imageInfo": {"imageSize": "large"}})
        assert told.slide_id == "slide-1"
    square = messages.ImageInfo.model_validate({"id": "slide-1", "tileSize": 240})
    assert square.tile_size == messages.Size(width=240, height=240)


def create(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return {**CALL, "action": "create", "input": {"type": kind, "content": content}}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([], "body"),
        ({**CALL}, "action"),
        ({**CALL, "action": "newImageFiles"}, "action"),
        ({**CALL, "action": "create"}, "input"),
        ({**CALL, "action": "create", "input": {"type": "DOE^JANE"}}, "input"),
        ({**CALL, "action": "create", "input": {"type": "wholeSlide"}, "slideId": ""}, "slideId"),
        ({**CALL, "action": "create", "input": {"type": "wholeSlide"}, "callbackInfo": None}, "callbackInfo"),
        (create("taggedPolygon", {"polygon": SQUARE, "tags": ["DOE"]}), "input.content"),
        (create("multiArea", {"polygons": [NOWHERE]}), "input.content.polygons.0.points.0.x"),
        ({**CALL, "action": "modify", "input": {**STORED, "id": "DOE"}}, "input.id"),
        (
            {**CALL, "action": "modify", "input": {**STORED, "displayProperties": {"DOE": ["JANE"]}}},
            "input.displayProperties",
        ),
    ],
)  # fmt: skip
def test_a_bad_message_names_the_place_and_no_value(body: object, place: str) -> None:
    with pytest.raises(BadMessage) as caught:
        messages.parse_invocation(body)
    assert place in [fault.split(": ")[0] for fault in caught.value.faults]
    for told in caught.value.faults:
        assert "DOE" not in told
        assert "JANE" not in told


@pytest.mark.parametrize("result", [STORED["data"]["result"], PATCHES])
def test_a_stored_result_goes_back_as_it_came(result: dict[str, Any]) -> None:
    body = {**STORED, "data": {"context": {"seed": None, "n": 1}, "result": result}, "future": {"a": [1]}}
    read = messages.parse_invocation({**CALL, "action": "modify", "input": body})
    assert isinstance(read, messages.Modify)
    sent = read.input.to_wire()
    for name in ("id", "versionId", "displayProperties", "attachments", "future"):
        assert sent[name] == body[name]
    assert sent["data"]["context"] == {"seed": None, "n": 1}
    ours, theirs = AdaptedResult.model_validate(sent), AdaptedResult.model_validate(body)
    assert ours.model_dump() == theirs.model_dump()


def test_old_content_is_read_and_sent_as_a_list() -> None:
    old = {
        "slideId": "s",
        "data": {"context": None, "result": {"type": "primitive", "content": {"polygons": [SQUARE]}}},
    }
    sent = results.NewResult.model_validate(old).to_wire()
    assert Result.model_validate(sent).data.result.content[0].polygons[0].points[1].x == 0.5


def test_a_kind_of_result_younger_than_we_are_is_passed_on() -> None:
    data = {"context": {}, "result": {"type": "heatmap", "content": {"cells": [1, None]}}}
    assert results.NewResult.model_validate({"slideId": "s", "data": data}).to_wire()["data"] == data


def test_the_frame_lies_on_the_edges_in_fractions_of_the_width() -> None:
    drawn = shapes.frame(4000, 1000, "analysis queued")
    sent = results.NewResult(
        slide_id="s", display_result="queued", application_version="1",
        data=results.ResultData(result=results.PrimitiveResult(content=[drawn])),
    ).to_wire()  # fmt: skip
    item = Result.model_validate(sent).data.result.content[0]
    assert [(at.x, at.y) for at in item.polygons[0].points] == [(0, 0), (1, 0), (1, 0.25), (0, 0.25)]
    assert (item.labels[0].label, item.labels[0].location.x) == ("analysis queued", 0.5)


def test_registration_is_what_the_public_schema_wants() -> None:
    sent = messages.Registration(
        application_id="a", display_name="A", manufacturer="M", url="https://g/ia/a",
        input_template=messages.InputTemplate(type="taggedPolygon", content=messages.TagChoice(tags=["x"])),
    ).to_wire()  # fmt: skip
    assert Registration.model_validate(sent, extra="forbid").inputTemplate.content.tags == ["x"]


def test_what_identifies_a_patient_is_not_shown_by_accident() -> None:
    info = messages.ImageInfo.model_validate(
        {"id": "s", "accessionNumber": "A-77", "examId": "E-88", "lisSlideId": "L-99"}
    )
    assert (info.accession_number, info.exam_id) == ("A-77", "E-88")
    assert not any(value in repr(info) for value in ("A-77", "E-88", "L-99"))
