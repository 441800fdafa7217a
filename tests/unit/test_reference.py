"""The API's page tells of every call there is, with examples that a shell and the gateway take."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from jsonschema_rs import validator_for

from gateway.console.reference import Call, Reference
from gateway.intake.rest import describe_api

BASE = "https://gateway.hospital"
REFERENCE = Reference(describe_api(), BASE)


def operation(call: Call) -> Any:
    return describe_api()["paths"][call.path][call.method.lower()]


def taken(schema: Any, value: Any) -> bool:
    return validator_for({**schema, "components": describe_api()["components"]}).is_valid(value)


def test_every_call_is_told_once() -> None:
    known = [(method.upper(), path) for path, calls in describe_api()["paths"].items() for method in calls]
    assert [(call.method, call.path) for call in REFERENCE.calls] == known
    assert len({call.key for call in REFERENCE.calls}) == len(known)


def test_every_name_leads_to_its_shape() -> None:
    shapes = {shape.name for shape in REFERENCE.shapes}
    named = [call.body for call in REFERENCE.calls if call.body]
    named += [answer.said for call in REFERENCE.calls for answer in call.answers]
    named += [field.said for call in REFERENCE.calls for field in call.fields]
    named += [field.said for shape in REFERENCE.shapes for field in shape.fields]
    assert {said.shape for said in named if said.shape} <= shapes
    assert "JobView" in {said.shape for said in named}


@pytest.mark.parametrize("call", REFERENCE.calls, ids=lambda call: call.key)
def test_an_example_is_one(call: Call) -> None:
    words = [word for word in shlex.split(call.example) if word.strip()]
    assert words[0] == "curl" and "Authorization: Bearer $TOKEN" in words
    assert ("-X" in words) == (call.method != "GET")
    address = urlsplit(words[-1])
    assert f"{address.scheme}://{address.netloc}" == BASE
    given = {each["name"]: each for each in operation(call).get("parameters", ())}
    for name, value in parse_qsl(address.query):
        schema = given[name]["schema"]
        asked: Any = int(value) if schema["type"] == "integer" else value
        assert taken(schema, [asked] if schema["type"] == "array" else asked), name
    assert (call.body is not None) == ("-d" in words)
    if call.body is not None:
        body = json.loads(words[words.index("-d") + 1])
        [content] = operation(call)["requestBody"]["content"].values()
        assert taken(content["schema"], body), body


def test_it_says_what_a_request_needs() -> None:
    asked = next(shape for shape in REFERENCE.shapes if shape.name == "JobRequest")
    assert asked.about.endswith("It names study_instance_uid or accession_number.")
    fields = {field.name: field for field in asked.fields}
    assert fields["application"].required and not fields["priority"].required
    assert fields["priority"].said.words == "whole number from 0 to 9, or null"
