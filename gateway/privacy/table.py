"""Which attributes identify somebody, and what becomes of each: `table.txt`, and rules for what it lacks.

The rules are about what nobody has thought of: a name, an address or a date that no table lists is treated
like one that is, and what no dictionary knows never leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

# UIDs that name a kind of thing, or a dictionary, and no thing of anybody's.
PUBLIC_UIDS: Final = frozenset(
    (
        *(0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x00081150, 0x0008115A),  # SOP classes
        *(0x0008010C, 0x0008010D, 0x00080117, 0x00080118),  # coding schemes and what is in them
        *(0x0008040E, 0x00083002, 0x00340003, 0x04000010, 0x04000510),  # transfer syntaxes
        *(0x30100052, 0x30100053),
    )
)
_PUBLIC_URLS: Final = frozenset((0x0008010E, 0x00080120, 0x00687005))
_USUAL: Final = {
    **dict.fromkeys(("dates", "descriptors", "structured", "graphics", "private"), "C"),
    **dict.fromkeys(("device", "institution", "patient", "uids"), "K"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """`basic`: the Basic Profile's action; `options`: the actions of those that change it."""

    basic: str
    options: Mapping[str, str]
    keyword: str = ""


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_DATES: Final[Mapping[str, str]] = MappingProxyType({"dates": "C"})
_UIDS: Final[Mapping[str, str]] = MappingProxyType({"uids": "K"})
KEPT: Final = Row("K", _NOTHING)
GONE: Final = Row("X", _NOTHING)
_BY_VR: Final = {
    "PN": Row("D", _NOTHING),
    "UI": Row("U", _UIDS),
    "UR": GONE,
    "AE": Row("D", _NOTHING),
    "UN": GONE,
    **dict.fromkeys(("DA", "DT"), Row("D", _DATES)),
}


def row_of(tag: int) -> Row:
    """Of an attribute that is nobody's own (an even group)."""
    if (row := read_table().get(tag)) is not None:
        return row
    group = tag >> 16
    if group < 0x0008 or group & 0xFF00 in (0x5000, 0x6000):  # of commands, files; curves, overlays
        return GONE
    if tag in PUBLIC_UIDS or tag in _PUBLIC_URLS:
        return KEPT
    vr = _vr_of(tag)
    return GONE if vr is None else _BY_VR.get(vr, KEPT)


@cache
def read_table() -> Mapping[int, Row]:
    """By tag; of curves and overlays, which have sixteen groups each, by that of the first."""
    rows = {}
    for line in files("gateway.privacy").joinpath("table.txt").read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            tag, basic, options, keyword = line.split()
            if tag != "private":
                rows[int(tag.replace("x", "0"), 16)] = Row(basic, _read_options(options), keyword)
    return MappingProxyType(rows)


def _read_options(written: str) -> Mapping[str, str]:
    named = (each.partition(":") for each in written.split(",") if written != "-")
    return MappingProxyType({name: action or _USUAL[name] for name, _, action in named})


@cache
def _vr_of(tag: int) -> str | None:
    """None: the dictionary doesn't know it, or knows of no name for it."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag

    return dictionary_VR(tag) if dictionary_has_tag(tag) and keyword_for_tag(tag) else None
