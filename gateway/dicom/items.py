"""DICOM JSON read item by item: of a long list no more is kept than somebody asked for, and others go on
meanwhile, since one item takes no time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

Item = Mapping[str, Any]

_MOST_ITEMS: Final = 200_000
_USUAL, _LONGEST = 16 * 1024, 8 * 2**20  # characters of one item
_MOST_VALUES: Final = 500_000  # in one item
_DEEPEST: Final = 20  # levels of an element's value
_SPACE: Final = " \t\r\n"


class NoItems(ValueError):
    """These bytes are no DICOM JSON, or more of it than any real answer has."""


def read_items(body: bytes, keep: Collection[str] | None = None) -> list[Item]:
    """`keep`: the tags that are wanted; None keeps all."""
    try:
        text = body.decode("utf-8-sig")
        return [_trim(item, keep) for item in _items(text)]
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, NoItems) else NoItems("it isn't JSON") from None


def _items(text: str) -> Iterator[Item]:
    at = _pass_space(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        item, at = _decode(text, at)
        if _pass_space(text, at) != len(text):
            raise NoItems("it isn't JSON")
        yield item
        return
    at = _pass_space(text, at + 1)
    for _ in range(_MOST_ITEMS):
        if text[at : at + 1] != "]":
            item, at = _decode(text, at)
            yield item
            at = _pass_space(text, at)
            if text[at : at + 1] == ",":
                at = _pass_space(text, at + 1)
                continue
        if text[at : at + 1] != "]" or _pass_space(text, at + 1) != len(text):
            raise NoItems("it isn't JSON")
        return
    raise NoItems("it lists more than any real answer does")


def _decode(text: str, at: int) -> tuple[Item, int]:
    """Most are short, and only so much is copied."""
    for size in (_USUAL, _LONGEST):
        piece = text[at : at + size]
        if size == _LONGEST and sum(map(piece.count, ",[{")) > _MOST_VALUES:
            break
        try:
            item, end = json.JSONDecoder().raw_decode(piece)
        except ValueError:
            if at + size >= len(text):
                raise
            continue
        if not isinstance(item, dict):
            raise NoItems("it is no DICOM")
        return item, at + end
    raise NoItems("one of its items is larger than any real one")


def _trim(item: Item, keep: Collection[str] | None) -> Item:
    kept = {tag: item[tag] for tag in (item if keep is None else keep) if tag in item}
    if any(_is_deeper(value, _DEEPEST) for value in kept.values()):
        raise NoItems("its values are nested without end")
    return kept


def _is_deeper(value: Any, than: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return than == 0 or any(_is_deeper(each, than - 1) for each in inner)


def _pass_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
