"""The one comparison of identity: whatever two sides both know of a patient, an order or a study must agree.

It is made whenever a study is chosen, resumed, received back or sent on. What one side doesn't know can't be
held against it; an unidentified patient's fillers (`U`, `00000000`) say nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.contract import NeedsHuman
from gateway.dicom.part10 import NotDicom

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


ISSUER: Final = "IssuerOfAccessionNumberSequence"

IDENTIFYING = (
    *("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyID", "PatientName", "PatientBirthDate"),
    *("PatientSex", "AccessionNumber", ISSUER, "SpecificCharacterSet"),
)
_SEXES = {"m": "M", "f": "F", "o": "O"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What isn't known is empty. A name is in DICOM's order (family^given^middle^prefix^suffix)."""

    study_instance_uid: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    accession_number: str = ""
    issuer_of_accession_number: str = ""
    study_id: str = ""  # Sectra's exam id
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""

    def __repr__(self) -> str:
        return "Identity()"


def identity_of(header: Dataset) -> Identity:
    return read_identity(partial(text_in, header))


def read_identity(text: Callable[..., str]) -> Identity:
    """`text`: what stands under a keyword, or under a second one within that sequence; of several values,
    all, with a backslash between."""
    issuer = partial(text, ISSUER)
    return Identity(
        study_instance_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        issuer_of_patient_id=text("IssuerOfPatientID"),
        accession_number=text("AccessionNumber"),
        issuer_of_accession_number=issuer("LocalNamespaceEntityID") or issuer("UniversalEntityID"),
        study_id=text("StudyID"),
        patient_name=text("PatientName"),
        birth_date=text("PatientBirthDate"),
        sex=text("PatientSex"),
    )


def differences(ours: Identity, theirs: Identity) -> list[str]:
    """What both know and doesn't agree, in words for a person."""
    found = _unlike("study UID", ours.study_instance_uid, theirs.study_instance_uid)
    found += _unlike("patient id", ours.patient_id, theirs.patient_id)
    found += _unlike("accession number", ours.accession_number, theirs.accession_number)
    found += _unlike("exam id", ours.study_id, theirs.study_id)
    if ours.patient_id.strip() and theirs.patient_id.strip():
        found += _unlike("issuer of the patient id", ours.issuer_of_patient_id, theirs.issuer_of_patient_id)
    if ours.accession_number.strip() and theirs.accession_number.strip():
        found += _unlike(
            "issuer of the accession number",
            ours.issuer_of_accession_number,
            theirs.issuer_of_accession_number,
        )
    if not _names_agree(ours.patient_name, theirs.patient_name):
        found.append("patient's name")
    if not _dates_agree(ours.birth_date, theirs.birth_date):
        found.append("birth date")
    found += _unlike("sex", _sex(ours.sex), _sex(theirs.sex))
    return found


def require_agreement(ours: Identity, theirs: Identity, what: str, advice: str) -> None:
    """`what`: the sentence up to the difference, such as "the study found isn't the one asked for". Both
    sides are kept encrypted with the job, for who has to compare them."""
    found = differences(ours, theirs)
    if found:
        raise NeedsHuman(
            f"{what}: another {_listed(found)}",
            advice,
            detail={"differs": found},
            said={"expected": _known(ours), "met": _known(theirs)},
        )


def _known(identity: Identity) -> dict[str, Any]:
    return {name: value for name, value in asdict(identity).items() if value}


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _unlike(words: str, ours: str, theirs: str) -> list[str]:
    """A number may have come with others of the same patient: then one of them is enough."""
    values = _values(ours), _values(theirs)
    return [words] if all(values) and values[0].isdisjoint(values[1]) else []


def _values(text: str) -> set[str]:
    return {value.strip() for value in text.split("\\")} - {""}


def _names_agree(ours: str, theirs: str) -> bool:
    """Component by component, in the alphabetic group; case, accents and what one side leaves out don't
    count."""
    pairs = zip(_components(ours), _components(theirs), strict=False)
    return all(first == second for first, second in pairs if first and second)


def _components(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name.partition("=")[0])
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [" ".join(part.split()).casefold() for part in plain.split("^")]


def _dates_agree(ours: str, theirs: str) -> bool:
    """`1970`, `19700000` and `19700101` agree."""
    first, second = _date(ours), _date(theirs)
    return first.startswith(second) or second.startswith(first)


def _date(written: str) -> str:
    """As many of its digits as mean something."""
    found = re.match(r"(\d{4})(\d\d)?(\d\d)?", written.strip().replace("-", "").replace(".", ""))
    if found is None or found[1] == "0000":
        return ""
    if found[2] in (None, "00"):
        return found[1]
    return found[1] + found[2] + (found[3] if found[3] not in (None, "00") else "")


def _sex(written: str) -> str:
    return _SEXES.get(written.strip()[:1].casefold(), "")


def text_in(header: Dataset, keyword: str, *within: str) -> str:
    """As `read_identity` asks for it."""
    try:
        value = header.get(keyword)
    except RecursionError:
        raise NotDicom("the sequences of an instance are nested without end") from None
    if within:
        return next((text for item in value or () if (text := text_in(item, *within))), "")
    from pydicom.multival import MultiValue

    values = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(each).strip(" \0") for each in values if each is not None)
