"""Content items, of reports and of what else is told in concepts and values: what one is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.privacy.charsets import DEFAULT
from gateway.privacy.elements import Element
from gateway.privacy.facts import text_of

TEXT_VALUE: Final = 0x0040A160
# Of one code: what it is, in which scheme, and what it means.
OF_CODES: Final = frozenset((*range(0x00080100, 0x00080110), 0x00080117, 0x00080118, 0x00080119, 0x00080120))
# What an observation is about: who took part, and where (PS3.16 TID 1002 to 1010).
WHO: Final = frozenset(
    (
        *("121008", "121009", "121011", "121013", "121016", "121017", "121021", "121022", "121025"),
        *("121026", "121029", "121030", "121031", "121035", "121036", "121106", "128774", "128775"),
    )
)
CONTENT_IDS: Final = {"121030": "patient", "121029": "patient", "121022": "accession"}
_CONCEPT, _CODE, _SCHEME = 0x0040A043, 0x00080100, 0x00080102
_PUBLIC_SCHEMES: Final = frozenset(
    ("DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "RADLEX", "FMA", "NCIt", "I10", "MDC")
)


def concept_of(item: Iterable[Element]) -> str:
    """The code of what it tells; empty where it is no content item."""
    for element in item:
        if element.tag == _CONCEPT and element.items:
            return next((text_of(each, DEFAULT) for each in element.items[0] if each.tag == _CODE), "")
    return ""


def is_public(item: Iterable[Element]) -> bool:
    """A code that anybody may look up."""
    return any(each.tag == _SCHEME and text_of(each, DEFAULT) in _PUBLIC_SCHEMES for each in item)
