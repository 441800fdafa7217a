"""What a vendor returned, as the JSON that is stored (encrypted) with the job, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.contract import Document, Finding, Finished, Header, NeedsHuman, Retryable, SlideResult
from gateway.delivery.drawings import NOT_DRAWN
from gateway.dicom.annotations import marks_in
from gateway.dicom.geometry import Plane
from gateway.dicom.identity import IDENTIFYING, Identity, identity_of, require_agreement
from gateway.dicom.marks import Mark, place
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.dicom.references import REFERRING, references_in
from gateway.dicom.version import Versions, plain
from gateway.dicom.whole import check_whole

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import FileDataset

_WHOSE = "Don't deliver it: find out at the vendor whose it is, then cancel or retry the job."


def to_json(finished: Finished, work: Path) -> dict[str, Any]:
    """Files by their name in the work folder and their digest."""
    return {
        "summary": finished.summary,
        "version": finished.version,
        "empty": finished.empty,
        "failed": list(finished.failed),
        "analyses": list(finished.analyses),
        "awaited": finished.awaited,
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
        analyses=tuple(stored.get("analyses", ())),
        awaited=int(stored.get("awaited", 0)),
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


@dataclass(frozen=True, slots=True)
class Judged:
    """`version`: of the vendor, as it says itself, as its result on the slide says, or as its objects do.
    `marks`: what its objects mark in space. `undrawn`: sentences on what of them isn't drawn."""

    finished: Finished
    version: str
    marks: tuple[Mark, ...] = ()
    undrawn: tuple[str, ...] = ()

    @property
    def spaces(self) -> set[str]:
        """The frames of reference of its marks."""
        return {mark.space for mark in self.marks}

    def placed(self, planes: Sequence[Plane]) -> Judged:
        """With its marks in the images that they lie in."""
        seen = place(self.marks, planes)
        finished = replace(self.finished, findings=(*self.finished.findings, *seen.findings))
        return Judged(finished, self.version, (), (*self.undrawn, *seen.remarks))


def judge(
    finished: Finished, asked: Identity, images: Mapping[str, int | None], *, images_known: bool
) -> Judged:
    """Whose it is, what it marks and who made it; each object is read once for all of that. A vendor that
    marks things in its objects only: they are drawn on the slide all the same, but not what it marks in a
    picture of its own. `images`: of the study, and how wide each is."""
    draws = not finished.findings and finished.slide is None
    placed = (finished.placed or {}).get("applicationVersion")
    told = finished.version or (placed if isinstance(placed, str) else "")
    versions = Versions()
    own: set[str] = set()
    found: list[Finding] = []
    marks: list[Mark] = []
    undrawn: list[str] = []
    unreadable = False
    for path, uid, header in _agreeing(finished, asked, images, whole=draws or not told):
        own.add(uid)
        if not told:
            versions.look(header)
        try:
            if draws:
                seen = marks_in(header, path, images)
                found += seen.findings
                marks += seen.marks
                undrawn += seen.remarks
        except NotDicom:
            unreadable = True  # that the next one is somebody else's is worse
    if unreadable:
        raise Retryable(
            "the vendor returned a report that can't be read", "If this goes on, tell the vendor."
        )
    if draws:
        finished = replace(finished, findings=tuple(f for f in found if f.sop_instance_uid not in own))
    if images_known:
        check_findings(finished, images)
    version = plain(told) if told else versions.told
    return Judged(finished, version, tuple(marks), tuple(dict.fromkeys(undrawn)))


def say_undrawn(judged: Judged) -> Finished:
    """Who looks at the slide is told of it too."""
    if not judged.undrawn:
        return judged.finished
    properties = {**judged.finished.properties, NOT_DRAWN: "; ".join(judged.undrawn)}
    return replace(judged.finished, properties=properties)


def files_are_here(stored: Mapping[str, Any], work: Path) -> bool:
    """Another machine may have collected them; then they have to be collected again."""
    return all(
        (work / file["name"]).is_file() and _digest(work / file["name"]) == file["sha256"]
        for file in (*stored["dicom"], *stored["documents"])
    )


def check_study(finished: Finished, asked: Identity, images: Collection[str]) -> None:
    """Every object must be whole, and of the study, order and patient that was asked about; what it refers
    to may be elsewhere too, but not only. `images`: of the study, by their UIDs."""
    for _ in _agreeing(finished, asked, images, whole=False):
        pass


def _agreeing(
    finished: Finished, asked: Identity, images: Collection[str], *, whole: bool
) -> Iterator[tuple[Path, str, FileDataset]]:
    """Each object that passes `check_study`, its UID, and what it says before its pixels, all or what is
    needed for that."""
    headers = {path: _header_of(path) for path in finished.dicom}
    own = {header.sop_instance_uid for header in headers.values()}
    for path, header in headers.items():
        if header.study_instance_uid != asked.study_instance_uid:
            raise NeedsHuman("the vendor returned a result for another study", _WHOSE)
        try:
            with readable():
                dataset = read_before(path, keywords=None if whole else (*IDENTIFYING, *REFERRING))
                met = identity_of(dataset)
                studies, instances = references_in(dataset)
        except (NotDicom, OSError):
            raise Retryable(
                "the vendor returned an object whose header can't be read",
                "If this goes on, tell the vendor.",
            ) from None
        require_agreement(asked, met, "the vendor returned a result for somebody else", _WHOSE)
        elsewhere = {*studies, *instances} - own
        if elsewhere and elsewhere.isdisjoint((asked.study_instance_uid, *images)):
            raise NeedsHuman("the vendor returned a result that refers to another study alone", _WHOSE)
        yield path, header.sop_instance_uid, dataset


def _header_of(path: Path) -> Header:
    try:
        return check_whole(path)
    except NotDicom:
        raise Retryable(
            "the vendor returned an object that is no whole DICOM file", "If this goes on, tell the vendor."
        ) from None


def check_findings(finished: Finished, images: Collection[str]) -> None:
    """What was seen in an image that the vendor was never sent is somebody else's."""
    if {finding.sop_instance_uid for finding in finished.findings} - {None, *images}:
        raise NeedsHuman("the vendor's findings lie in an image that isn't of this study", _WHOSE)


def _noted(path: Path, work: Path) -> dict[str, str]:
    return {"name": str(path.relative_to(work)), "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
