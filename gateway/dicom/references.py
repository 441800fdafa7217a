"""What an object is about by its own words: the studies and instances that it refers to."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from gateway.dicom.part10 import NotDicom

_REFERRING = [
    "ReferencedStudySequence",
    "ReferencedSeriesSequence",
    "ReferencedImageSequence",
    "ReferencedInstanceSequence",
    "SourceImageSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
]
_MOST_REFERENCES = 1000
# What pydicom is seen to raise on bytes that aren't DICOM.
_UNREADABLE = (EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


def references_of(path: Path) -> tuple[list[str], list[str]]:
    """Studies, and instances."""
    try:
        told = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_REFERRING))
        return _gather(told)
    except _UNREADABLE:
        raise NotDicom("the object's references can't be read") from None


def _gather(told: Dataset) -> tuple[list[str], list[str]]:
    studies: dict[str, None] = {}
    instances: dict[str, None] = {}

    def walk(dataset: Dataset, within: str, depth: int) -> None:
        study = dataset.get("StudyInstanceUID")
        if study:
            studies[str(study)] = None
        sop = dataset.get("ReferencedSOPInstanceUID")
        if sop:
            (studies if within == "ReferencedStudySequence" else instances)[str(sop)] = None
        if depth and len(studies) + len(instances) < _MOST_REFERENCES:
            for element in dataset:
                if element.VR == "SQ":
                    for item in element.value:
                        walk(item, element.keyword, depth - 1)

    walk(told, "", 5)
    return list(studies)[:_MOST_REFERENCES], list(instances)[:_MOST_REFERENCES]
