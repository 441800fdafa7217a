"""Whether a study is the one that was asked for: compared when it is chosen, and again by its first image,
since an archive may not tell whose accession number or patient id it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.archives.archive import StudyMatch
from gateway.contract import NeedsHuman, Permanent
from gateway.dicom.identity import Identity, identity_of, require_agreement
from gateway.jobs.records import Job

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_ADVICE = (
    "Nothing was sent. The job's history has both sides: cancel the job and ask for the right study, or have"
    " the archive mended and resume it."
)
_MIXED = "Nothing more is sent. Have the archive sort out whose images they are, then resume the job."


def require_named(asked: Identity) -> None:
    if not asked.study_instance_uid and not asked.accession_number:
        raise Permanent(
            "the slide names neither a study nor an accession number",
            "Complete the slide's request in Sectra, then ask again.",
        )


def check_match(asked: Identity, study: StudyMatch) -> None:
    """Raises NeedsHuman unless all that both sides know agrees. What was found by an accession number has to
    have one."""
    if study.study_instance_uid != asked.study_instance_uid and not study.identity.accession_number:
        raise NeedsHuman(f"{study.archive} found a study by its accession number, but it has none", _ADVICE)
    told = replace(study.identity, study_instance_uid="")
    what = f"the study that {study.archive} found isn't the one asked for"
    require_agreement(asked, told, what, _ADVICE)


class ImageCheck:
    """Of all images of a study: they may also be of several patients, mixed up in the archive."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first: Identity | None = None

    def __call__(self, heading: Dataset) -> None:
        met = identity_of(heading)
        first = self._first = self._first or met
        images = f"the study's images from {self._job.archive}"
        require_agreement(first, met, f"{images} aren't all of one patient", _MIXED)
        require_agreement(asked_of(self._job), met, f"{images} aren't of the one asked for", _ADVICE)


def asked_of(job: Job) -> Identity:
    return Identity(
        study_instance_uid=job.study_instance_uid or "",
        patient_id=job.patient_id or "",
        accession_number=job.accession_number or "",
        issuer_of_accession_number=job.accession_number_issuer or "",
        study_id=job.exam_id or "",
    )
