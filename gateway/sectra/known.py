"""What passes between Sectra and a vendor: messages built anew from the fields that are known, in their very
spelling. Whatever else stands in one may mean more to its reader than to us: `SlideId` is `slideId` to some,
and `$type` the name of a class to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.sectra.wire import BadMessage


@dataclass(frozen=True, slots=True)
class Each:
    """A dictionary whose names are its maker's own."""

    shape: Shape


Shape: TypeAlias = "Mapping[str, Shape] | list[Shape] | Each | None"  # None: a plain value

_ANYTHING = Each(None)  # the maker's own words for himself, as deep as they go
_POINT: Shape = {"x": None, "y": None}
_OUTLINES: Shape = [{"points": [_POINT]}]
_DRAWING: Shape = {
    "style": dict.fromkeys(("strokeStyle", "fillStyle", "size")),
    "polygons": _OUTLINES,
    "polylines": _OUTLINES,
    "labels": [{"location": _POINT, "label": None}],
}
_GALLERY: Shape = {
    **dict.fromkeys(("description", "patchSize", "magnification")),
    "polygons": _OUTLINES,
    "patches": [{"tag": None, "position": _POINT, "sortKeyValue": None}],
    "tags": [None],
    "statuses": Each({"value": None, "message": None}),
    "actions": [dict.fromkeys(("id", "state", "name", "tooltip"))],
}
_CONTENTS: Mapping[str, Shape] = {"primitive": [_DRAWING], "patchCollection": _GALLERY}
_AROUND: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "versionId", "slideId", "displayResult", "applicationVersion")),
    "displayProperties": Each(None),
    "attachments": [{"name": None, "state": None}],
}
_AREA: Mapping[str, Shape] = {
    "polygon": {"points": [_POINT]},
    "polygons": _OUTLINES,
    "tags": [None],
    "tagIndex": None,
}
_INPUT: Mapping[str, Shape] = {"type": None, "content": _AREA}
_QUALITY: Mapping[str, Shape] = {
    "applicationVersion": None,
    "qualityControl": {"status": None, "versionId": None},
}


def known_result(body: Any, *, strict: bool = False) -> dict[str, Any]:
    """`strict`: what isn't of its shape is refused (`BadMessage`); else it is left out."""
    data = body.get("data") if isinstance(body, Mapping) else None
    result = data.get("result") if isinstance(data, Mapping) else None
    kind = result.get("type") if isinstance(result, Mapping) else None
    inner: dict[str, Shape] = {"type": None}
    if isinstance(kind, str) and kind in _CONTENTS:
        inner["content"] = _CONTENTS[kind]
    elif strict and result is not None:
        raise BadMessage([f"data.result.type: must be one of {', '.join(_CONTENTS)}"])
    return _whole(body, {**_AROUND, "data": {"context": _ANYTHING, "result": inner}}, strict=strict)


def known_quality(body: Any) -> dict[str, Any]:
    return _whole(body, _QUALITY, strict=True)


def known_input(body: Any) -> dict[str, Any]:
    return _whole(body, _INPUT, strict=False)


def known_context(body: Any) -> dict[str, Any]:
    return _whole(body, _ANYTHING, strict=False)


_MISFIT = object()


def _whole(body: Any, shape: Shape, *, strict: bool) -> dict[str, Any]:
    built = _build(body, shape, "", strict=strict)
    return built if isinstance(built, dict) else {}


def _build(value: Any, shape: Shape, place: str, *, strict: bool) -> Any:
    if shape is _ANYTHING:
        return _own_words(value) if isinstance(value, Mapping | None) else _misfit(place, strict=strict)
    if shape is None:
        return value if not isinstance(value, Mapping | list) else _misfit(place, strict=strict)
    if value is None:
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _misfit(place, strict=strict)
        each = [_build(one, shape[0], place, strict=strict) for one in value]
        return [one for one in each if one is not _MISFIT]
    if not isinstance(value, Mapping):
        return _misfit(place, strict=strict)
    if isinstance(shape, Each):  # whose names are told to nobody: they are the sender's own words
        named = {name: (shape.shape, place) for name in value if _is_ones_own(name)}
    else:
        named = {
            name: (inner, f"{place}.{name}".strip(".")) for name, inner in shape.items() if name in value
        }
    built = {name: _build(value[name], inner, at, strict=strict) for name, (inner, at) in named.items()}
    return {name: one for name, one in built.items() if one is not _MISFIT}


def _misfit(place: str, *, strict: bool) -> object:
    if strict:
        raise BadMessage([f"{place or 'body'}: isn't of its shape"])
    return _MISFIT


def _own_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _own_words(inner) for name, inner in value.items() if _is_ones_own(name)}
    return [_own_words(inner) for inner in value] if isinstance(value, list) else value


def _is_ones_own(name: Any) -> bool:
    """`$…` and `__…` are words to whoever reads the JSON, not to whom it is for."""
    return isinstance(name, str) and not name.startswith(("$", "__"))
