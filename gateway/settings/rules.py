"""Which instances an application wants, as people write it in the configuration: `PatientName !~ ^TEST`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator

_RULE = re.compile(r"\s*(\w+)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_UNREADABLE = {"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN"}


@dataclass(frozen=True, slots=True)
class TagRule:
    """Holds for an attribute's values: one of them is so (`=`), or matches (`=~`); none is (`!=`, `!~`)."""

    keyword: str
    operator: str
    value: str
    pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> TagRule:
        # Takes a second, which whoever writes no rules needn't wait.
        from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword  # type: ignore[attr-defined]

        found = _RULE.fullmatch(text)
        if found is None or not found[3]:
            raise ValueError("a rule is written like PatientName !~ ^TEST or Modality = CR (=, !=, =~, !~)")
        keyword, operator, value = found.groups()
        if tag_for_keyword(keyword) is None:
            near = get_close_matches(keyword, (entry[4] for entry in DicomDictionary.values()), 3)
            raise ValueError(
                f"{keyword} is no DICOM keyword" + (f"; perhaps {' or '.join(near)}" if near else "")
            )
        if dictionary_VR(keyword).split(" or ")[0] in _UNREADABLE:
            raise ValueError(f"{keyword} holds no text that a rule could be about")
        pattern = read_pattern(value) if "~" in operator else re.compile(re.escape(value))
        return cls(keyword, operator, value, pattern)

    def holds(self, values: Sequence[str]) -> bool:
        if "~" in self.operator:
            met = any(self.pattern.search(value) for value in values)
        else:
            met = self.value in values
        return met is not self.operator.startswith("!")

    def __str__(self) -> str:
        return f"{self.keyword} {self.operator} {self.value}"


def read_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text} is no regular expression: {error}") from None


def read_sop_class(text: str) -> str:
    """A UID, or DICOM's word for it."""
    if re.fullmatch(r"[0-9.]{1,64}", text):
        return text
    from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

    for uid, entry in UID_dictionary.items():
        if entry[4] == text and entry[1] == "SOP Class":
            return str(uid)
    raise ValueError(f"{text} is neither a UID nor a SOP class like DigitalXRayImageStorageForPresentation")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected here; put it in quotes")  # noqa: TRY004 pydantic tells these
    return value


def _read_rule(value: Any) -> TagRule:
    return value if isinstance(value, TagRule) else TagRule.parse(_text(value))


def _read_pattern(value: Any) -> re.Pattern[str]:
    return value if isinstance(value, re.Pattern) else read_pattern(_text(value))


Rule = Annotated[TagRule, BeforeValidator(_read_rule)]
Pattern = Annotated[re.Pattern[str], BeforeValidator(_read_pattern)]
SopClass = Annotated[str, BeforeValidator(lambda value: read_sop_class(_text(value)))]
