"""The OpenAPI document in a person's words: each call with what it takes, what it answers, and an example."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

Schema = Mapping[str, Any]

_PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
_FORMATS = {"date-time": "date and time", "uuid": "id"}
_MOMENT = "2026-01-31T07:00:00Z"
_STREAM = "text/event-stream"
_SHOWN_BESIDE = ("state", "since", "limit")  # of a query's parameters, in an example


@dataclass(frozen=True, slots=True)
class Said:
    """`shape`: the name of one that stands elsewhere on the page."""

    words: str
    shape: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    said: Said
    required: bool
    where: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    about: str
    fields: Sequence[Field]
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: str
    about: str
    said: Said


@dataclass(frozen=True, slots=True)
class Call:
    """`refusals`: the statuses of answers that say what is wrong."""

    method: str
    path: str
    about: str
    fields: Sequence[Field]
    body: Said | None
    answers: Sequence[Answer]
    refusals: Sequence[str]
    example: str

    @property
    def key(self) -> str:
        return f"{self.method.lower()}-{re.sub('[^a-z0-9]+', '-', self.path.lower()).strip('-')}"


class Reference:
    """`base`: where the API is found."""

    def __init__(self, document: Mapping[str, Any], base: str) -> None:
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]
        self._base = base
        self.calls = [
            self._tell(method.upper(), path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        self.shapes = [self._shape(name, schema) for name, schema in sorted(self._schemas.items())]

    def _tell(self, method: str, path: str, operation: Mapping[str, Any]) -> Call:
        parameters = operation.get("parameters", ())
        fields = [
            Field(each["name"], self._say_given(each), bool(each.get("required")), each["in"])
            for each in parameters
        ]
        body = _content(operation.get("requestBody"))
        answers = {code: each for code, each in operation["responses"].items() if code < "400"}
        return Call(
            method,
            path,
            operation["summary"],
            fields,
            None if body is None else self._say(body),
            [
                Answer(code, each["description"], self._say(_content(each) or {}))
                for code, each in answers.items()
            ],
            sorted(set(operation["responses"]) - set(answers)),
            self._example(method, path, parameters, body, answers),
        )

    def _shape(self, name: str, schema: Schema) -> Shape:
        required = schema.get("required", ())
        fields = [
            Field(field, self._say(inner), field in required)
            for field, inner in schema.get("properties", {}).items()
        ]
        about = schema.get("description", "")
        if either := [
            " and ".join(each["required"]) for each in schema.get("anyOf", ()) if "required" in each
        ]:
            about = f"{about} It names {' or '.join(either)}.".strip()
        return Shape(name, about, fields, schema.get("enum", ()))

    # -- in words -------------------------------------------------------------------------------------

    def _say_given(self, parameter: Mapping[str, Any]) -> Said:
        schema = parameter["schema"]
        if schema.get("type") != "array":
            return self._say(schema)
        each = self._say(schema["items"])
        return Said(f"{each.words}; may be repeated", each.shape)

    def _say(self, schema: Schema) -> Said:
        if "$ref" in schema:
            name = _name(schema)
            return Said(name, name)
        if "anyOf" in schema:
            return self._say_either(schema["anyOf"])
        if "enum" in schema or "const" in schema:
            return Said(" or ".join(map(str, schema.get("enum", [schema.get("const")]))))
        kind = schema.get("type")
        if kind == "array":
            inner = self._say(schema["items"])
            return Said(
                f"list: {inner.words}" if inner.shape is None else f"list of {inner.words}", inner.shape
            )
        if kind == "object" or kind is None:
            return Said("JSON")
        plain = _FORMATS.get(schema.get("format", ""), _PLAIN.get(kind, str(kind)))
        return Said(plain + _bounds(schema))

    def _say_either(self, schemas: Sequence[Schema]) -> Said:
        some = [each for each in schemas if each.get("type") != "null"]
        lists = [each for each in some if each.get("type") == "array"]
        if len(some) == 2 and len(lists) == 1:  # one, or several of the same
            inner = self._say(lists[0]["items"])
            return Said(f"{inner.words}, or a list of such", inner.shape)
        told = [self._say(each) for each in some]
        shape = next((each.shape for each in told if each.shape), None)
        return Said(
            " or ".join(each.words for each in told) + (", or null" if some != list(schemas) else ""), shape
        )

    # -- an example -----------------------------------------------------------------------------------

    def _example(
        self,
        method: str,
        path: str,
        parameters: Sequence[Mapping[str, Any]],
        body: Schema | None,
        answers: Mapping[str, Any],
    ) -> str:
        shown = {
            each["name"]: self._make(each["name"], each["schema"])
            for each in parameters
            if each["in"] == "query" and (each.get("required") or each["name"] in _SHOWN_BESIDE)
        }
        query = urlencode(
            {name: value[0] if isinstance(value, list) else value for name, value in shown.items()}
        )
        address = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), path)
        streams = any(_STREAM in each.get("content", ()) for each in answers.values())
        parts = ["curl", *(["-N"] if streams else []), *(["-X", method] if method != "GET" else [])]
        parts += ["-H", '"Authorization: Bearer $TOKEN"']
        if body is not None:
            made = json.dumps(self._make("", body))
            parts += ["\\\n ", "-H", "'Content-Type: application/json'", "-d", f"'{made}'"]
        return " ".join([*parts, "\\\n ", f"'{self._base}{address}{'?' + query if query else ''}'"])

    def _make(self, name: str, schema: Schema) -> Any:
        """Something of this shape: what is required, and the first of what there may be instead."""
        if "$ref" in schema:
            return self._make(name, self._schemas[_name(schema)])
        if "properties" in schema:
            either: Schema = next(iter(schema.get("anyOf", ())), {})
            needed = [*schema.get("required", ()), *either.get("required", ())]
            return {field: self._make(field, schema["properties"][field]) for field in needed}
        if "anyOf" in schema:
            return self._make(name, schema["anyOf"][0])
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "array":
            return [self._make(name, schema["items"])]
        if schema.get("type") == "integer":
            return schema.get("default", schema.get("minimum", 0))
        if schema.get("format") == "date-time":
            return _MOMENT
        return "1.2.3" if "[0-9]" in schema.get("pattern", "") else name.upper()


def _content(told: Mapping[str, Any] | None) -> Schema | None:
    return None if told is None else next((each["schema"] for each in told.get("content", {}).values()), None)


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _bounds(schema: Schema) -> str:
    told = ""
    if "minimum" in schema and "maximum" in schema:
        told += f" from {schema['minimum']} to {schema['maximum']}"
    if "maxLength" in schema:
        told += f", at most {schema['maxLength']} characters"
    if schema.get("default") is not None:
        told += f"; {schema['default']} if it isn’t said"
    return told
