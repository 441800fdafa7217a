"""Values as DICOM writes them: of text, and the dummies that stand for what may not be told."""

from __future__ import annotations

import re
from typing import Final

from gateway.privacy.charsets import DEFAULT, TEXTS, Charsets, encode
from gateway.privacy.elements import Element

STRINGS: Final = TEXTS | {"AE", "CS", "UR"}
NUMBERS: Final = {
    "DS": re.compile(r"[0-9+\-.eE \\]*"),
    "IS": re.compile(r"[0-9+\- \\]*"),
    "AS": re.compile(r"\d{3}[DWMY]"),
}
DUMMY_WORDS: Final = {
    "AE": "REMOVED",
    "CS": "REMOVED",
    "AS": "000Y",
    "IS": "1",
    "DS": "1",
    "UR": "urn:removed",
}
WIDTHS: Final = {"AT": 4, "FL": 4, "FD": 8, "SL": 4, "SS": 2, "UL": 4, "US": 2, "SV": 8, "UV": 8}
_LONGEST: Final = {"SH": 16, "CS": 16, "AE": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240}


def with_text(element: Element, text: str, charsets: Charsets) -> Element:
    longest = _LONGEST.get(element.vr)
    if longest is not None and len(text) > longest:
        parts = [text] if element.vr in ("ST", "LT") else text.split("\\")
        text = "\\".join(part[:longest] for part in parts)
    value = encode(text, element.vr, charsets)
    if len(value) % 2:
        value += b"\0" if element.vr in ("UI", "OB", "UN") else b" "
    return with_bytes(element, value)


def with_bytes(element: Element, value: bytes) -> Element:
    return Element(element.tag, element.vr, value, as_written=element.as_written)


def dummy_of(element: Element) -> Element:
    """Of bytes and binary numbers, zeros."""
    vr = element.vr
    if vr in STRINGS or vr in DUMMY_WORDS:
        return with_text(element, DUMMY_WORDS.get(vr, "REMOVED"), DEFAULT)
    many = len(element.value) // WIDTHS[vr] * WIDTHS[vr] if vr in WIDTHS else 2
    return with_bytes(element, bytes(many))
