"""What becomes of each attribute under a profile: the table's row, its options, and what we keep stable."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from typing import Final

from gateway.privacy.table import Row, row_of
from gateway.settings.sections import Profile


class Act(Enum):
    """What is done with one attribute. Of sequences, what is kept, cleaned or has UIDs is gone into."""

    REMOVE = "removed"
    EMPTY = "emptied"
    DUMMY = "replaced by a dummy"
    KEEP = "kept"
    CLEAN = "cleaned"
    UID = "replaced by another UID"
    SHIFT = "moved by as many days as all dates of this patient"
    PSEUDONYM = "replaced by a pseudonym"


# Where the table would have it emptied, or says nothing but "a dummy": several studies of a patient, and a
# result that comes back, need somebody to belong to.
PSEUDONYMS: Final[Mapping[int, str]] = {
    0x00100010: "patient",
    0x00100020: "patient",
    0x00080050: "accession",
    0x00200010: "study",
    0x00400512: "container",
    0x00400551: "specimen",
    0x00120040: "patient",
}
# Where the table would have it removed, and one kind of object may not lack it: a presentation state.
_NEEDED: Final = frozenset((0x00700082, 0x00700083))
_CODES: Final[Mapping[str, tuple[str, str]]] = {  # of CID 7050
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean-pixel": ("113101", "Clean Pixel Data Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "retain-longitudinal-full-dates": (
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
    ),
    "retain-longitudinal-modified-dates": (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    "retain-patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "retain-device": ("113109", "Retain Device Identity Option"),
    "retain-safe-private": ("113111", "Retain Safe Private Option"),
    "retain-institution": ("113112", "Retain Institution Identity Option"),
}
_COLUMNS: Final[Mapping[str, str]] = {
    "retain-device": "device",
    "retain-institution": "institution",
    "retain-patient-characteristics": "patient",
    "clean-descriptors": "descriptors",
    "clean-structured-content": "structured",
}
# Which of several the table allows: what an object of any kind stays valid with.
_MILDEST: Final[Mapping[str, Act]] = {
    "X": Act.REMOVE,
    "Z": Act.EMPTY,
    "D": Act.DUMMY,
    "K": Act.KEEP,
    "C": Act.CLEAN,
    "U": Act.UID,
    "X/Z": Act.EMPTY,
    "X/D": Act.DUMMY,
    "Z/D": Act.DUMMY,
    "X/Z/D": Act.DUMMY,
    "X/Z/U*": Act.UID,
}


class Rules:
    """A profile, ready to be asked about each attribute."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._columns = {_COLUMNS[option] for option in profile.options if option in _COLUMNS}
        self._known: dict[int, Act] = {}

    def act_on(self, tag: int) -> Act:
        """Of an attribute of the standard's; a maker's own are `keeps`."""
        act = self._known.get(tag)
        if act is None:
            act = self._known[tag] = self._decide(tag, row_of(tag))
        return act

    def keeps(self, group: int, creator: str, element: int) -> bool:
        return (group, creator, element & 0xFF) in self._private

    def keeps_identity_of(self, what: str) -> bool:
        """`device`, `institution`."""
        return what in self._columns

    @property
    def drops(self) -> bool:
        """Of a text, all in which something known is found, rather than that alone."""
        return self.profile.descriptors == "drop"

    @property
    def codes(self) -> list[tuple[str, str]]:
        """What was done, for the object itself to say."""
        return [_CODES["basic"], *(_CODES[option] for option in sorted(self.profile.options))]

    @property
    def dates(self) -> str:
        """In the words of Longitudinal Temporal Information Modified."""
        if "retain-longitudinal-full-dates" in self.profile.options:
            return "UNMODIFIED"
        return "MODIFIED" if "retain-longitudinal-modified-dates" in self.profile.options else "REMOVED"

    @property
    def refuses_pixels(self) -> bool:
        return "clean-pixel" in self.profile.options

    @cached_property
    def _private(self) -> set[tuple[int, str, int]]:
        return {(each.group, each.creator, each.element) for each in self.profile.keep_private}

    def _decide(self, tag: int, row: Row) -> Act:
        if tag in PSEUDONYMS:
            return Act.PSEUDONYM
        usual = Act.DUMMY if tag in _NEEDED else _MILDEST[row.basic]
        return self._dated(row) or self._optional(row) or usual

    @property
    def of_dates(self) -> Act:
        """Of those that nothing else is said of."""
        return {"UNMODIFIED": Act.KEEP, "MODIFIED": Act.SHIFT}.get(self.dates, Act.DUMMY)

    def _dated(self, row: Row) -> Act | None:
        return self.of_dates if "dates" in row.options and self.dates != "REMOVED" else None

    def _optional(self, row: Row) -> Act | None:
        actions = {row.options[column] for column in self._columns & row.options.keys()}
        if not actions:
            return None
        return Act.KEEP if "K" in actions else Act.CLEAN
