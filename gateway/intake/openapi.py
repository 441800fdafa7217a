"""The OpenAPI document, made from the models that read requests and write answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.intake.shapes import PLAIN
from gateway.jobs.states import State

CURSOR = r"^[0-9]{1,16}-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_TEXT = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": PLAIN}
_FILTERS = ("department", "application", "adapter", "study", "accession_number", "slide_id")
_PROBLEM = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One that takes no body."""

    method: Literal["get", "post"]
    path: str
    summary: str
    answer: type[BaseModel]
    parameters: Sequence[Mapping[str, Any]] = ()


def describe(
    request: type[BaseModel],
    resumption: type[BaseModel],
    action: type[BaseModel],
    job: type[BaseModel],
    listed: type[BaseModel],
    pausing: type[BaseModel],
    peer: type[BaseModel],
    peers: type[BaseModel],
    beside: Sequence[Operation] = (),
) -> dict[str, Any]:
    told = [each.answer for each in beside]
    models = [(model, "serialization") for model in (job, listed, peer, peers, *told)]
    models += [(model, "validation") for model in (request, resumption, action, pausing)]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    one_job = _answer("The job", job.__name__)
    acts: dict[str, Any] = {
        act: {
            "post": {
                "summary": summary,
                "parameters": [_job_id()],
                **({"requestBody": _body(resumption.__name__, False)} if act == "resume" else {}),
                "responses": {
                    "200": one_job,
                    **({"202": _answer("A new job about the same", job.__name__)} if act == "retry" else {}),
                    **_problems(404, 409, *((400, 413, 422) if act == "resume" else ())),
                },
            }
        }
        for act, summary in (
            ("retry", "At once, or again from the beginning what had failed; what is done, as a new job"),
            ("cancel", "Stop a job, also one that waits"),
            ("resume", "Let a held job go on where it was held"),
        )
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Imaging AI gateway", "version": __version__},
        "security": [{"bearer": []}],
        "paths": {
            "/api/v1/jobs": {
                "post": {
                    "summary": "Ask for an analysis of a study",
                    "parameters": [_header("Idempotency-Key", _TEXT)],
                    "requestBody": _body(request.__name__, True),
                    "responses": {
                        "202": one_job,
                        "200": _answer("The job that this key stands for already", job.__name__),
                        **_problems(400, 404, 409, 413, 422),
                    },
                },
                "get": {
                    "summary": "Jobs, the newest first",
                    "parameters": [
                        _query("state", _any_of({"type": "string", "enum": [each.value for each in State]})),
                        *(_query(name, _any_of(_TEXT)) for name in _FILTERS),
                        _query("since", {"type": "string", "format": "date-time"}),
                        _query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
                        _query("cursor", {"type": "string", "pattern": CURSOR}),
                    ],
                    "responses": {"200": _answer("A page of jobs", listed.__name__), **_problems(422)},
                },
            },
            "/api/v1/jobs/actions": {
                "post": {
                    "summary": "Do the same to all jobs of a filter, if they are as many as expected",
                    "requestBody": _body(action.__name__, True),
                    "responses": {
                        "200": {
                            "description": "The ids of the jobs",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        },
                        **_problems(400, 409, 413, 422),
                    },
                }
            },
            "/api/v1/jobs/{id}": {
                "get": {
                    "summary": "A job with its events, deliveries and proof",
                    "parameters": [_job_id()],
                    "responses": {"200": one_job, **_problems(404)},
                }
            },
            **{f"/api/v1/jobs/{{id}}/{act}": path for act, path in acts.items()},
            "/api/v1/peers": {
                "get": {
                    "summary": "How archives, vendors, destinations and servers are, and who is paused",
                    "responses": {"200": _answer("The peers", peers.__name__), **_problems()},
                }
            },
            **_operations(beside),
            **_pausing(pausing.__name__, _answer("The peer", peer.__name__)),
            "/api/v1/events": {
                "get": {
                    "summary": "Every event of every job, as it happens (server-sent events)",
                    "responses": {
                        "200": {
                            "description": "A stream of events",
                            "content": {"text/event-stream": {"schema": {"type": "string"}}},
                        },
                        **_problems(),
                    },
                }
            },
            "/api/v1/openapi.json": {
                "get": {
                    "summary": "This document",
                    "responses": {
                        "200": {
                            "description": "OpenAPI",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        },
                        **_problems(),
                    },
                }
            },
        },
        "components": {
            "schemas": {**schemas["$defs"], "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations(operations: Sequence[Operation]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for each in operations:
        wrong = _problems(422) if each.parameters else _problems()
        responses = {"200": _answer("What there is", each.answer.__name__), **wrong}
        told: dict[str, Any] = {"summary": each.summary, "responses": responses}
        if each.parameters:
            told["parameters"] = list(each.parameters)
        paths.setdefault(each.path, {})[each.method] = told
    return paths


def _answer(description: str, name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(name: str, required: bool) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        str(status): {
            "description": "Refused, with the reason",
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in (401, 403, 408, 415, 429, 503, *statuses)
    }


def _any_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The name may be repeated."""
    return {"type": "array", "items": schema}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


PAGES = (
    _query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
    _query("cursor", {"type": "string", "pattern": "^[0-9]{1,18}$"}),
)
AUDIT = (
    *(_query(name, _any_of(_TEXT)) for name in ("who", "what")),
    _query("job", {"type": "string", "format": "uuid"}),
    _query("since", {"type": "string", "format": "date-time"}),
    *PAGES,
)


def _pausing(body: str, shown: dict[str, Any]) -> dict[str, Any]:
    name = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths: dict[str, Any] = {}
    for kind in ("applications", "adapters", "destinations"):
        paths[f"/api/v1/{kind}/{{name}}/pause"] = {
            "post": {
                "summary": "Let its jobs wait; work goes on being taken in, and slides say so",
                "parameters": name,
                "requestBody": _body(body, True),
                "responses": {"200": shown, **_problems(400, 404, 413, 415, 422)},
            }
        }
        paths[f"/api/v1/{kind}/{{name}}/unpause"] = {
            "post": {
                "summary": "Let its jobs go on",
                "parameters": name,
                "responses": {"200": shown, **_problems(404)},
            }
        }
    return paths


def _job_id() -> dict[str, Any]:
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
