"""C-FIND at each level, and what its answers say of a study. Any value may be missing or empty."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from gateway.archives.archive import InstanceRef, answers
from gateway.contract import Permanent, Retryable
from gateway.dicom.association import PENDING, failure_of
from gateway.dicom.identity import text_in
from gateway.dicom.peer import DimsePeer
from gateway.dicom.texts import text_of, texts_of

FINDING: Final = "looking for a study"
LISTING: Final = "listing the instances of a study"

_MOST_ANSWERS = 200_000


def identifier(level: str, **keys: Any) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        if isinstance(value, str) and ("\\" in value or not value.isprintable()):
            raise Permanent(
                "what the study is looked for with holds characters that no archive has",
                "Check where the accession number or the patient id comes from.",
            )
        setattr(identifier, keyword, value)
    if not all(str(value).isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def find(
    association: Any, peer: DimsePeer, keys: Dataset, doing: str, asked: dict[str, str] | None = None
) -> list[Dataset]:
    found: list[Dataset] = []
    for status, item in association.send_c_find(keys, StudyRootQueryRetrieveInformationModelFind):
        code = status.get("Status")
        if code in PENDING:
            if item is None:
                raise Retryable(
                    f"the {peer.name} answered what can't be decoded while {doing}", "Look into its log."
                )
            if len(found) >= _MOST_ANSWERS:
                raise Retryable(f"the {peer.name} answered without end while {doing}", "Look into its log.")
            if answers(asked or {}, partial(text_in, item)):
                found.append(item)
        elif code != 0:
            raise failure_of(peer, doing, status)
    return found


def list_study(
    association: Any, peer: DimsePeer, study: str, keywords: Collection[str] = ()
) -> list[InstanceRef]:
    """`keywords`: attributes that are wanted of each instance as well, of whatever level they are."""
    asked = {"StudyInstanceUID": study}
    wanted = dict.fromkeys(keywords, "")
    keys = identifier("SERIES", **{**wanted, **asked, "SeriesInstanceUID": "", "Modality": ""})
    listed: dict[str, InstanceRef] = {}
    for row in find(association, peer, keys, LISTING, asked):
        series = text_of(row, "SeriesInstanceUID")
        if series is None:
            raise Retryable(f"the {peer.name} listed a series that has no UID", "Look into its log.")
        within = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        keys = identifier("IMAGE", **{**wanted, **within, "SOPInstanceUID": "", "SOPClassUID": ""})
        for instance in find(association, peer, keys, LISTING, within):
            uid = text_of(instance, "SOPInstanceUID")
            if uid is None:
                raise Retryable(f"the {peer.name} listed an instance that has no UID", "Look into its log.")
            told = _told(row, keywords) | _told(instance, keywords)
            listed[uid] = InstanceRef(
                series, uid, text_of(instance, "SOPClassUID"), text_of(row, "Modality"), told
            )
    found = list(listed.values())
    if all(any(word in each.attributes for each in found) for word in keywords):
        return found
    above: dict[str, tuple[str, ...]] = {}
    for item in find(association, peer, identifier("STUDY", **{**wanted, **asked}), LISTING, asked):
        above |= _told(item, keywords)
    return [replace(each, attributes={**above, **each.attributes}) for each in found]


def _told(item: Dataset, keywords: Collection[str]) -> dict[str, tuple[str, ...]]:
    told = {keyword: texts_of(item, keyword) for keyword in keywords}
    return {keyword: texts for keyword, texts in told.items() if texts}
