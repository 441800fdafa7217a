"""DICOM JSON read item by item: of a long list no more is kept than somebody asked for, and others go on
meanwhile, since one item takes no time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

Item = Mapping[str, Any]
_Step = Callable[[str, int, bool], int | None]

_MOST_ITEMS: Final = 200_000
_USUAL, _LONGEST = 16 * 1024, 8 * 2**20  # characters of one item
_MOST_VALUES: Final = 500_000  # in one item
_DEEPEST: Final = 20  # levels of an element's value
_SPACE: Final = " \t\r\n"


class NoItems(ValueError):
    """These bytes are no DICOM JSON, or more of it than any real answer has."""


class TooMany(NoItems):
    """They may be asked for page by page."""


class ItemReader:
    """Fed with an answer as it comes; whatever isn't wanted of an item is let go as soon as it has been read.
    `keep`: the tags that are wanted; None keeps all. Raises NoItems, as soon as it is sure."""

    def __init__(self, keep: Collection[str] | None = None) -> None:
        self._keep = keep
        self._items: list[Item] = []
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""  # of it, what hasn't been read
        self._coming: list[str] = []
        self._come = self._enough = 0  # characters that are coming, and are looked at together
        self._next: _Step = self._begin

    def feed(self, data: bytes) -> None:
        with _told_as_no_items():
            self._coming.append(self._decoder.decode(data))
            self._come += len(self._coming[-1])
            if self._come >= self._enough:
                self._go_on(last=False)

    def finish(self) -> list[Item]:
        with _told_as_no_items():
            self._coming.append(self._decoder.decode(b"", final=True))
            self._go_on(last=True)
        if self._next not in (self._begin, self._end):
            raise NoItems("it isn't JSON")
        return self._items

    def _go_on(self, *, last: bool) -> None:
        text, at = "".join((self._text, *self._coming)), 0
        self._coming.clear()
        self._come = self._enough = 0
        while (at := _pass_space(text, at)) < len(text):
            end = self._next(text, at, last)
            if end is None:
                self._enough = max(_USUAL, len(text) - at)  # looked at again when there is twice as much
                break
            at = end
        self._text = text[at:]

    # What may stand where: each returns where it ends there, or None if that hasn't come yet.

    def _begin(self, text: str, at: int, last: bool) -> int | None:
        if text[at] == "[":
            self._next = self._one
            return at + 1
        return self._read_item(text, at, last, self._end)

    def _one(self, text: str, at: int, last: bool) -> int | None:
        if text[at] == "]":
            return self._close(text, at, last)
        if len(self._items) >= _MOST_ITEMS:
            raise TooMany(f"it lists more than {_MOST_ITEMS} things")
        return self._read_item(text, at, last, self._close)

    def _close(self, text: str, at: int, _: bool) -> int | None:
        if text[at] not in ",]":
            raise NoItems("it isn't JSON")
        self._next = self._one if text[at] == "," else self._end
        return at + 1

    def _end(self, _text: str, _at: int, _last: bool) -> int | None:
        raise NoItems("it isn't JSON")

    def _read_item(self, text: str, at: int, last: bool, following: _Step) -> int | None:
        found = _decode(text, at, last=last)
        if found is None:
            return None
        item, end = found
        self._items.append(_trim(item, self._keep))
        self._next = following
        return end


def read_items(body: bytes, keep: Collection[str] | None = None) -> list[Item]:
    """Of an answer that is here already."""
    reader = ItemReader(keep)
    reader.feed(body)
    return reader.finish()


@contextmanager
def _told_as_no_items() -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, NoItems) else NoItems("it isn't JSON") from None


def _decode(text: str, at: int, *, last: bool) -> tuple[Item, int] | None:
    """None: not all of it has come. Most are short, and only so much is copied."""
    for size in (_USUAL, _LONGEST):
        piece = text[at : at + size]
        if size == _LONGEST and sum(map(piece.count, ",[{")) > _MOST_VALUES:
            break
        try:
            item, end = json.JSONDecoder().raw_decode(piece)
        except ValueError:
            if at + size < len(text):
                continue
            if last:
                raise
            return None
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
