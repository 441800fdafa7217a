"""Who stands for whom at a vendor: the same as ever within a department, another in each, and nobody can tell
without the department's key.

A pseudonym follows from the key and the original alone, so that a second sending, or one after a crash, has
the same. What was issued for a job is kept, sealed, until the job is purged: that is the way back.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SHORT: Final = 16  # characters of an SH
_FEWEST_DAYS, _MOST_DAYS = 31, 1855
ISSUER: Final = "@issuer"  # kept like a pseudonym, though nobody is told it
DAY: Final = "@day:"  # likewise, before a day that was told in place of another
_STANDARD: Final = "1.2.840.10008."


@dataclass(frozen=True, slots=True)
class Original:
    """What a pseudonym stands for. `kind`: uid, patient, accession, study, container, specimen, issuer or
    day."""

    kind: str
    value: str

    def __repr__(self) -> str:
        return f"Original({self.kind})"


class Pseudonyms:
    """Of one department, for one job: remembers what it has issued and nobody has kept yet. `issuer`: of the
    patient's id, as it was fixed before."""

    def __init__(self, key: bytes, issuer: str | None = None) -> None:
        self._key = key
        self._issuer = issuer
        self._uids: dict[str, str] = {}
        self._unkept: dict[str, Original] = {}
        self._kept: set[str] = set()

    def uid(self, original: str) -> str:
        """Of one UID; the standard's own, and none, stay."""
        known = self._uids.get(original)
        if known is None:
            known = original
            if original and not is_standard(original):
                digest = self._digest("uid", original)
                known = self._note(f"2.25.{int.from_bytes(digest[:16], 'big')}", "uid", original)
            self._uids[original] = known
        return known

    def fix_issuer(self, issuer: str) -> str:
        """The first that an instance names, or doesn't, is that of all: some name it in a part of a study, or
        only since they were put right, and the patient stays one."""
        if self._issuer is None:
            self._issuer = issuer
            self._note(ISSUER, "issuer", issuer)
        return self._issuer

    def patient(self, identifier: str, issuer: str, study: str) -> str:
        """Who has no id is known by the study alone."""
        named = self._digest("patient", *((issuer, identifier) if identifier else ("", "", study)))
        return self._note(_word("P", named), "patient", identifier)

    def of(self, kind: str, original: str) -> str:
        return self._note(_word(kind[0].upper(), self._digest(kind, original)), kind, original)

    def days(self, identifier: str, issuer: str, study: str) -> int:
        """By how many all dates of this patient go back."""
        named = self._digest("days", *((issuer, identifier) if identifier else ("", "", study)))
        return _FEWEST_DAYS + int.from_bytes(named[:8], "big") % (_MOST_DAYS - _FEWEST_DAYS + 1)

    def note_day(self, told: str, original: str) -> None:
        """So that what comes back is of the true one (`YYYYMMDD`)."""
        self._note(f"{DAY}{told}", "day", original)

    def unkept(self) -> Mapping[str, Original]:
        """What was issued since it was last said to be kept."""
        return dict(self._unkept)

    def keep(self, issued: Mapping[str, Original]) -> None:
        self._kept.update(issued)
        for each in issued:
            self._unkept.pop(each, None)

    def _note(self, pseudonym: str, kind: str, original: str) -> str:
        if pseudonym not in self._kept:
            self._unkept[pseudonym] = Original(kind, original)
        return pseudonym

    def _digest(self, *what: str) -> bytes:
        return hmac.digest(self._key, b"\0".join(each.encode() for each in what), "sha256")


def is_standard(uid: str) -> bool:
    """Registered: some who have no root of their own make UIDs below the standard's."""
    if not uid.startswith(_STANDARD):
        return False
    from pydicom.uid import UID

    return UID(uid, validation_mode=0).name != uid


def _word(begin: str, digest: bytes) -> str:
    return begin + base64.b32encode(digest).decode("ascii")[: _SHORT - 1]
