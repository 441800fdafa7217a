"""Who and where, as an object itself tells it: gathered before it is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.privacy.charsets import DEFAULT, Charsets, decode, read_charsets
from gateway.privacy.elements import Element
from gateway.privacy.known import Facts
from gateway.privacy.profile import Rules

_CHARSET, _BORN = 0x00080005, 0x00100030
_DAY: Final = 8  # characters
_WORDS: Final = frozenset(
    (
        *(
            0x00100020,
            0x00101000,
            0x00101040,
            0x00101050,
            0x00101090,
            0x00102154,
            0x00102155,
        ),  # the patient's
        *(0x00080050, 0x00200010, 0x00380010, 0x00401001, 0x00402016, 0x00402017, 0x00321070),  # of orders
        *(
            0x00120040,
            0x00120042,
            0x00400512,
            0x00400551,
            0x22000002,
            0x22000005,
        ),  # subjects, specimens, labels
    )
)
_PLACES: Final = {
    **dict.fromkeys((0x00080080, 0x00080081, 0x00081040), "institution"),
    **dict.fromkeys((0x00081010, 0x00181000, 0x00080055), "device"),
}


def gather(elements: list[Element], rules: Rules) -> Facts:
    facts = Facts()
    kept = rules.dates == "UNMODIFIED"
    places = {tag for tag, what in _PLACES.items() if not rules.keeps_identity_of(what)}
    _gather(elements, DEFAULT, _WORDS | places, facts, _is_born if kept else _is_day)
    return facts


def text_of(element: Element, charsets: Charsets) -> str:
    return decode(element.value, element.vr, charsets).strip()


def _is_born(element: Element) -> bool:
    return element.tag == _BORN


def _is_day(element: Element) -> bool:
    return element.vr in ("DA", "DT")


def _gather(
    elements: list[Element],
    charsets: Charsets,
    words: frozenset[int],
    facts: Facts,
    tells_day: Callable[[Element], bool],
) -> None:
    own = next((each for each in elements if each.tag == _CHARSET), None)
    charsets = read_charsets(own.value) if own is not None else charsets
    for element in elements:
        if element.items is not None:
            for item in element.items:
                _gather(item, charsets, words, facts, tells_day)
        elif element.vr == "PN":
            facts.names.update(filter(None, text_of(element, charsets).split("\\")))
        elif element.tag in words:
            facts.words.update(filter(None, text_of(element, charsets).split("\\")))
        elif tells_day(element):
            facts.days.update(day[:_DAY] for day in text_of(element, charsets).split("\\"))
