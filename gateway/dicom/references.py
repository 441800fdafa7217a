"""What an object is about by its own words: the studies and instances that it refers to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.dicom.reading import read_before, readable

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset


REFERRING = (
    "ReferencedStudySequence",
    "ReferencedSeriesSequence",
    "ReferencedImageSequence",
    "ReferencedInstanceSequence",
    "SourceImageSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
)
_MOST_REFERENCES = 1000


def references_of(path: Path) -> tuple[list[str], list[str]]:
    """Studies, and instances; NotDicom, if that can't be read."""
    with readable():
        return references_in(read_before(path, keywords=REFERRING))


def references_in(header: Dataset) -> tuple[list[str], list[str]]:
    """Of its own study nothing is said here."""
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
                descend(element, depth - 1)

    def descend(element: DataElement, depth: int) -> None:
        if element.VR == "SQ":
            for item in element.value:
                walk(item, element.keyword, depth)

    for keyword in REFERRING:
        if keyword in header:
            descend(header[keyword], 4)
    return list(studies)[:_MOST_REFERENCES], list(instances)[:_MOST_REFERENCES]
