"""Objects whose pixels or documents may show who it is, which nobody here can clean: they don't leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.settings.sections import Profile

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_DOCUMENTS: Final = f"{_STORAGE}104."
_SLIDES: Final = f"{_STORAGE}77.1.6."
_SHOWING: Final = {  # by how their class begins
    f"{_STORAGE}7.": "is a secondary capture, which may show names",
    f"{_STORAGE}3.": "is an ultrasound recording, which may show names",
    f"{_STORAGE}6.": "is an ultrasound image, which may show names",
}
# MPEG-2, MPEG-4, HEVC, whose syntaxes are numbered one after the other; and those of live pictures.
_STREAMS: Final = (*(f"1.2.840.10008.1.2.4.10{number}" for number in range(9)), "1.2.840.10008.1.2.7.")
_SCREEN: Final = ("SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE")
_CAPTURES: Final = ("DV", "DI", "DF", "WSD", "SD", "SI")  # of Conversion Type: not by the scanner itself
_SOP_CLASS, _IMAGE_TYPE, _MODALITY = 0x00080016, 0x00080008, 0x00080060
_CONVERSION, _BURNED_IN, _LABEL_INSIDE, _ELSEWHERE = 0x00080064, 0x00280301, 0x00480010, 0x00287FE0


def why_kept_back(
    text: Callable[[int], str], frame_types: Iterable[str], transfer_syntax: str, profile: Profile
) -> str | None:
    """The end of a sentence that begins with "the instance"; None: it may leave. `text`: of an attribute,
    empty where there is none."""
    kind = f"{text(_SOP_CLASS)}."
    frames = frame_types if kind.startswith(_SLIDES) else ()
    types = [each.strip() for told in (text(_IMAGE_TYPE), *frames) for each in told.upper().split("\\")]
    if kind.startswith(_DOCUMENTS):
        return "is a document, which can't be de-identified"
    if text(_ELSEWHERE):
        return "has its pixels elsewhere, where nothing is de-identified"
    if transfer_syntax.startswith(_STREAMS) and not profile.keep_recordings:
        return "is a recording, within whose stream cameras and their users may write what nobody here reads"
    if "LABEL" in types:
        return "is the label of a slide"
    if "OVERVIEW" in types and not profile.keep_overview:
        return "is the overview of a slide, which may show its label"
    if text(_LABEL_INSIDE).upper() == "YES" and not ("OVERVIEW" in types and profile.keep_overview):
        return "shows the label of a slide"
    return _shows(kind, types, text) if "clean-pixel" in profile.options else None


def _shows(kind: str, types: list[str], text: Callable[[int], str]) -> str | None:
    if text(_BURNED_IN).upper() == "YES":
        return "has writing in its pixels"
    for begins, why in _SHOWING.items():
        if kind.startswith(begins):
            return why
    if text(_MODALITY).upper() == "US":
        return _SHOWING[f"{_STORAGE}6."]
    if any(told in kind_of_image for kind_of_image in types for told in _SCREEN):
        return "is a copy of a screen, which may show names"
    if text(_CONVERSION).upper() in _CAPTURES:
        return _SHOWING[f"{_STORAGE}7."]
    return None
