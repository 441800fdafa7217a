"""Which version of a vendor's software made an object, as the object itself tells."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import readable

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset

_ALGORITHM_VERSION = "111003"  # of TID 4019, Algorithm Identification
_LONGEST = 64
_DEEPEST = 6


class Versions:
    """Of several objects: that of the first that tells it, its algorithm's before its maker's."""

    def __init__(self) -> None:
        self._algorithm = ""
        self._made_with = ""

    def look(self, header: Dataset) -> None:
        """What can't be read tells nothing."""
        if self._algorithm:
            return
        with suppress(NotDicom), readable():
            self._algorithm = _algorithm(header.get("ContentSequence") or [])
            self._made_with = self._made_with or str(header.get("SoftwareVersions") or "")

    @property
    def told(self) -> str:
        """Empty, if none did."""
        return plain(self._algorithm or self._made_with)


def plain(text: str) -> str:
    """As it may stand in a label, an alert and the history."""
    return "".join(each for each in text.strip() if each.isprintable())[:_LONGEST]


def _algorithm(items: Iterable[Dataset], depth: int = 0) -> str:
    for item in items:
        for name in item.get("ConceptNameCodeSequence") or []:
            if name.get("CodeValue") == _ALGORITHM_VERSION:
                return str(item.get("TextValue") or "")
        below = item.get("ContentSequence") or []
        if depth < _DEEPEST and (found := _algorithm(below, depth + 1)):
            return found
    return ""
