"""What an object says itself of its having been de-identified."""

from __future__ import annotations

from typing import Final

from gateway.privacy.charsets import DEFAULT
from gateway.privacy.elements import Element
from gateway.privacy.profile import Rules
from gateway.privacy.values import with_text

METHOD: Final = "PS3.15 Basic Profile, by the imaging gateway"


def with_signs(elements: list[Element], rules: Rules) -> list[Element]:
    codes = [
        [_sign(0x00080100, "SH", code), _sign(0x00080102, "SH", "DCM"), _sign(0x00080104, "LO", meaning)]
        for code, meaning in rules.codes
    ]
    signs = [
        _sign(0x00120062, "CS", "YES"),
        _sign(0x00120063, "LO", METHOD),
        Element(0x00120064, "SQ", items=codes),
        _sign(0x00280303, "CS", rules.dates),
    ]
    ours = {each.tag for each in signs}
    return sorted((*(e for e in elements if e.tag not in ours), *signs), key=lambda element: element.tag)


def _sign(tag: int, vr: str, text: str) -> Element:
    return with_text(Element(tag, vr), text, DEFAULT)
