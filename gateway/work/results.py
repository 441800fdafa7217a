"""What a vendor returned, as the JSON that is stored (encrypted) with the job, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.contract import Document, Finding, Finished, Header, NeedsHuman, Retryable, SlideResult
from gateway.dicom.annotations import read_findings
from gateway.dicom.identity import IDENTIFYING, Identity, identity_of, require_agreement
from gateway.dicom.part10 import NotDicom
from gateway.dicom.references import references_of
from gateway.dicom.whole import check_whole

_WHOSE = "Don't deliver it: find out at the vendor whose it is, then cancel or retry the job."


def to_json(finished: Finished, work: Path) -> dict[str, Any]:
    """Files by their name in the work folder and their digest."""
    return {
        "summary": finished.summary,
        "version": finished.version,
        "empty": finished.empty,
        "failed": list(finished.failed),
        "dicom": [_noted(path, work) for path in finished.dicom],
        "findings": [asdict(finding) for finding in finished.findings],
        "properties": dict(finished.properties),
        "slide": None if finished.slide is None else asdict(finished.slide),
        "placed": None if finished.placed is None else dict(finished.placed),
        "hl7": list(finished.hl7),
        "documents": [
            {**_noted(document.path, work), "media_type": document.media_type, "title": document.title}
            for document in finished.documents
        ],
    }


def from_json(stored: Mapping[str, Any], work: Path) -> Finished:
    return Finished(
        summary=stored["summary"],
        version=stored.get("version", ""),
        empty=stored["empty"],
        failed=tuple(stored.get("failed", ())),
        dicom=tuple(work / file["name"] for file in stored["dicom"]),
        findings=tuple(
            Finding(**{**finding, "points": tuple((x, y) for x, y in finding["points"])})
            for finding in stored["findings"]
        ),
        properties=stored["properties"],
        slide=None if stored["slide"] is None else SlideResult(**stored["slide"]),
        placed=stored["placed"],
        hl7=tuple(stored["hl7"]),
        documents=tuple(
            Document(work / file["name"], file["media_type"], file["title"]) for file in stored["documents"]
        ),
    )


def files_are_here(stored: Mapping[str, Any], work: Path) -> bool:
    """Another machine may have collected them; then they have to be collected again."""
    return all(
        (work / file["name"]).is_file() and _digest(work / file["name"]) == file["sha256"]
        for file in (*stored["dicom"], *stored["documents"])
    )


def check_study(finished: Finished, asked: Identity, images: Collection[str]) -> None:
    """Every object must be whole, and of the study, order and patient that was asked about; what it refers
    to may be elsewhere too, but not only. `images`: of the study, by their UIDs."""
    headers = {path: _header_of(path) for path in finished.dicom}
    own = {header.sop_instance_uid for header in headers.values()}
    for path, header in headers.items():
        if header.study_instance_uid != asked.study_instance_uid:
            raise NeedsHuman("the vendor returned a result for another study", _WHOSE)
        try:
            met = identity_of(dcmread(path, specific_tags=list(IDENTIFYING), stop_before_pixels=True))
            studies, instances = references_of(path)
        except (InvalidDicomError, OSError, ValueError, EOFError):
            raise Retryable(
                "the vendor returned an object whose header can't be read",
                "If this goes on, tell the vendor.",
            ) from None
        require_agreement(asked, met, "the vendor returned a result for somebody else", _WHOSE)
        elsewhere = {*studies, *instances} - own
        if elsewhere and elsewhere.isdisjoint((asked.study_instance_uid, *images)):
            raise NeedsHuman("the vendor returned a result that refers to another study alone", _WHOSE)


def _header_of(path: Path) -> Header:
    try:
        return check_whole(path)
    except NotDicom:
        raise Retryable(
            "the vendor returned an object that is no whole DICOM file", "If this goes on, tell the vendor."
        ) from None


def with_findings(finished: Finished) -> Finished:
    """A vendor that marks things in its objects only: they are drawn on the slide all the same, but not what
    it marks in a picture of its own."""
    own = {check_whole(path).sop_instance_uid for path in finished.dicom}
    found = (finding for path in finished.dicom for finding in read_findings(path))
    return replace(finished, findings=tuple(f for f in found if f.sop_instance_uid not in own))


def check_findings(finished: Finished, images: Collection[str]) -> None:
    """What was seen in an image that the vendor was never sent is somebody else's."""
    if {finding.sop_instance_uid for finding in finished.findings} - {None, *images}:
        raise NeedsHuman("the vendor's findings lie in an image that isn't of this study", _WHOSE)


def _noted(path: Path, work: Path) -> dict[str, str]:
    return {"name": str(path.relative_to(work)), "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
