"""Where a study is: the application's archives in order, and for each one passed over, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.archives.dicomweb import DicomwebArchive, InstanceRef, StudyMatch
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable, Unsuitable

# What is made of images, not an image: sent along, a vendor would get its own results back.
_RESULT_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{family}."
    for family in (
        7,  # Secondary Capture and its multi-frame kin
        11,  # presentation states
        66,  # segmentations, registrations
        88,  # structured reports, key objects
        104,  # encapsulated documents
    )
)


@dataclass(frozen=True, slots=True)
class Wanted:
    study_instance_uid: str | None
    accession_number: str | None
    patient_id: str | None
    modalities: Sequence[str] = ()

    def __repr__(self) -> str:
        return "Wanted()"


@dataclass(frozen=True, slots=True)
class Found:
    archive: str
    study: StudyMatch
    instances: tuple[InstanceRef, ...]
    left_out: int
    remarks: tuple[str, ...]


class Lookup:
    def __init__(self, archives: Mapping[str, DicomwebArchive], only_online: Mapping[str, bool]) -> None:
        self._archives = archives
        self._only_online = only_online

    def archive(self, name: str) -> DicomwebArchive:
        if name not in self._archives:
            raise NeedsHuman(
                f"the archive {name} of this job is no longer configured",
                f"Put archives.{name} back into the configuration, or cancel the job.",
            )
        return self._archives[name]

    async def find(self, names: Sequence[str], wanted: Wanted) -> Found:
        """The first archive that has the study, and may be used."""
        remarks: list[str] = []
        trouble: Failure | None = None
        for name in names:
            archive = self.archive(name)
            try:
                studies = await _ask(archive, wanted)
            except Failure as failure:
                remarks.append(f"{name}: {failure.message}")
                trouble = trouble or failure
                continue
            if not studies:
                remarks.append(f"{name}: the study isn't there")
                continue
            study = _the_one(name, studies)
            if self._only_online.get(name) and study.availability not in (None, "ONLINE"):
                remarks.append(f"{name}: the study is there, but {study.availability}, not ONLINE")
                trouble = trouble or Retryable(
                    f"the study is {study.availability} in {name}, and only ONLINE studies are fetched there",
                    "Have the study restored, or wait until it is.",
                )
                continue
            if study.availability is None:
                remarks.append(f"{name}: doesn't tell availability; taken as ONLINE")
            return await _describe(archive, study, wanted, remarks)
        if trouble is not None:
            raise _with_remarks(trouble, remarks)
        raise Permanent(
            f"no archive has the study (asked: {', '.join(names)})",
            "Check that the study was archived, and its study UID or accession number.",
            detail={"archives": remarks},
        )


async def _ask(archive: DicomwebArchive, wanted: Wanted) -> list[StudyMatch]:
    if wanted.study_instance_uid is not None:
        return await archive.find_studies(study_instance_uid=wanted.study_instance_uid)
    return await archive.find_studies(accession_number=wanted.accession_number, patient_id=wanted.patient_id)


def _the_one(name: str, studies: Sequence[StudyMatch]) -> StudyMatch:
    by_uid = {study.study_instance_uid: study for study in studies}
    if len(by_uid) > 1:
        raise NeedsHuman(
            f"{len(by_uid)} studies in {name} match the accession number",
            "Resume the job with the study_instance_uid of the right one; the job's history lists them.",
            detail={"choices": sorted(by_uid)},
        )
    return next(iter(by_uid.values()))


async def _describe(archive: DicomwebArchive, study: StudyMatch, wanted: Wanted, remarks: list[str]) -> Found:
    listed = await archive.list_instances(study.study_instance_uid, study.instance_count)
    if study.instance_count is not None and len(listed) != study.instance_count:
        raise Retryable(
            f"{archive.name} promises {study.instance_count} instances and lists {len(listed)}",
            "The study may still be arriving; if this goes on, have the archive check it.",
        )
    images = [one for one in listed if not _is_result(one)]
    chosen = [one for one in images if not wanted.modalities or one.modality in wanted.modalities]
    if not chosen:
        found = ", ".join(sorted({one.modality or "unknown" for one in listed})) or "nothing"
        accepted = ", ".join(wanted.modalities) or "any image"
        raise Unsuitable(
            f"the study has nothing for this application: it holds {found}; accepted: {accepted}",
            "Choose another application, or widen accept.modalities.",
        )
    return Found(archive.name, study, tuple(chosen), len(listed) - len(chosen), tuple(remarks))


def _is_result(one: InstanceRef) -> bool:
    return f"{one.sop_class_uid}.".startswith(_RESULT_CLASSES)


def _with_remarks(failure: Failure, remarks: Sequence[str]) -> Failure:
    failure.detail.setdefault("archives", list(remarks))
    return failure
