"""Findings as a DICOM structured report (TID 1500, Comprehensive 3D SR as IHE's AI Results asks for): regions
with their images, scores, measures, labels.

It costs two seconds and 200 MB to import highdicom, so this room is only entered by the workshop, which is a
process of its own.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PixelOriginInterpretationValues,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from gateway.contract import Finding
from gateway.delivery.objects import Maker, complete, follow_up, shorten, stamp
from gateway.delivery.shapes import outline, quantity, words
from gateway.dicom.heading import frames_of

_OWN_CODES = "99GATEWAY"
_LANGUAGE = "121049"
_MODALITIES = {code.value: code for code in codes.cid29.concepts.values()}

Reference = TypeVar("Reference", SourceImageForRegion, SourceImageForMeasurementGroup)
Group = PlanarROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations


def write_report(
    header: Dataset,
    images: Mapping[str, Dataset],
    findings: Sequence[Finding],
    summary: str,
    maker: Maker,
    at: datetime,
) -> Dataset:
    """`images`: headers of those that findings name, by SOP instance UID."""
    algorithm = AlgorithmIdentification(
        name=maker.display_name,
        version=maker.version or "unknown",
        manufacturer=maker.manufacturer or None,
    )
    device = DeviceObserverIdentifyingAttributes(
        uid=_device_uid(maker),
        name=maker.display_name,
        manufacturer_name=maker.manufacturer or None,
        model_name=maker.display_name,
    )
    groups = [_group(number, finding, images, maker, algorithm) for number, finding in enumerate(findings)]
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        codes.SCT.ImagingProcedure,
        groups,
    )
    root = content[0]
    # The language of the labels is the vendor's affair; highdicom would claim English.
    kept = [item for item in root.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != _LANGUAGE]
    library = [_library_of(images.values())] if images else []
    said = [_comment(summary)] if summary.strip() else []
    root.ContentSequence = ContentSequence([*kept[:-1], *library, *kept[-1:], *said])
    evidence = [_evidence_of(image) for image in images.values()] or [_evidence_of(header)]
    report = Comprehensive3DSR(
        evidence,
        root,
        series_instance_uid=maker.make_series_uid("reports"),
        series_number=9001,
        sop_instance_uid=maker.make_uid("report"),
        instance_number=maker.run,
        manufacturer=shorten(maker.manufacturer or maker.display_name),
        manufacturer_model_name=shorten(maker.display_name),
        software_versions=shorten(maker.version) or None,
        series_description=shorten(f"{maker.display_name}: report"),
        specific_character_set="ISO_IR 192",
        is_complete=True,
    )
    stamp(report, header)
    for keyword in ("ContentDate", "InstanceCreationDate"):
        setattr(report, keyword, f"{at:%Y%m%d}")
    for keyword in ("ContentTime", "InstanceCreationTime"):
        setattr(report, keyword, f"{at:%H%M%S}")
    if maker.predecessor:
        follow_up(report, maker.predecessor)
    del report.ContributingEquipmentSequence  # it holds the moment, and no second try would be the same
    return report


def _evidence_of(image: Dataset) -> Dataset:
    """Without the patient: highdicom refuses what it holds for no sex, date or time. The truth is stamped
    afterwards, as it is."""
    evidence = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(evidence, keyword, image.get(keyword))
    return complete(evidence)


def _library_of(images: Collection[Dataset]) -> ContainerContentItem:
    """TID 1600: each image that findings name, with as much of it as all images tell."""
    entries = [
        ImageContentItem(
            CodedConcept("260753009", "SCT", "Source"),
            str(image.SOPClassUID),
            str(image.SOPInstanceUID),
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        for image in images
    ]
    for entry, image in zip(entries, images, strict=True):
        entry.ContentSequence = ContentSequence(list(_descriptors_of(image)))
    group = _container("126200", "Image Library Group", entries)
    return _container("111028", "Image Library", [group])


def _descriptors_of(image: Dataset) -> Iterator[CodeContentItem | UIDRefContentItem | NumContentItem]:
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    if (modality := _MODALITIES.get(str(image.get("Modality")))) is not None:
        yield CodeContentItem(codes.DCM.Modality, modality, context)
    if image.get("FrameOfReferenceUID"):
        yield UIDRefContentItem(codes.DCM.FrameOfReferenceUID, str(image.FrameOfReferenceUID), context)
    pixels = CodedConcept("{pixels}", "UCUM", "Pixels")
    for name, count in ((codes.DCM.PixelDataRows, "Rows"), (codes.DCM.PixelDataColumns, "Columns")):
        if image.get(count):
            yield NumContentItem(name, int(image[count].value), pixels, relationship_type=context)


def _container(
    value: str, meaning: str, content: Sequence[ImageContentItem | ContainerContentItem]
) -> ContainerContentItem:
    made = ContainerContentItem(
        CodedConcept(value, "DCM", meaning), relationship_type=RelationshipTypeValues.CONTAINS
    )
    made.ContentSequence = ContentSequence(content)
    return made


def _group(
    number: int,
    finding: Finding,
    images: Mapping[str, Dataset],
    maker: Maker,
    algorithm: AlgorithmIdentification,
) -> Group:
    image = images.get(finding.sop_instance_uid or "")
    tracking = TrackingIdentifier(
        uid=maker.make_uid("finding", str(number)), identifier=words(finding) or "finding"
    )
    label = _concept(finding.label.strip() or "finding")
    measurements = _measure(finding, label)
    region = None if image is None else _region(finding, image)
    group: Group
    if region is not None:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking, region, finding_type=label, algorithm_id=algorithm, measurements=measurements
        )
    else:
        reference = None if image is None else _image_of(image, SourceImageForMeasurementGroup)
        group = MeasurementsAndQualitativeEvaluations(
            tracking,
            finding_type=label,
            algorithm_id=algorithm,
            measurements=measurements,
            source_images=None if reference is None else [reference],
        )
    # The code's meaning is cut at 64 letters, and a measure may be more than a number.
    if said := words(finding):
        group[0].ContentSequence.append(_comment(said))
    return group


def _measure(finding: Finding, label: CodedConcept) -> list[Measurement] | None:
    measurements = []
    if finding.score is not None and math.isfinite(finding.score):
        certainty = CodedConcept("111012", "DCM", "Certainty of Finding")
        measurements.append(Measurement(certainty, finding.score, CodedConcept("1", "UCUM", "no units")))
    if (measured := quantity(finding.measure)) is not None:
        value, unit, meaning = measured
        measurements.append(Measurement(label, value, CodedConcept(unit, "UCUM", meaning)))
    return measurements or None


def _region(finding: Finding, image: Dataset) -> ImageRegion | None:
    frame, frames = finding.frame, frames_of(image)
    if frame is not None and not 0 < frame <= frames:
        return None
    whole = frame is None
    width = (whole and image.get("TotalPixelMatrixColumns")) or image.get("Columns") or 0
    height = (whole and image.get("TotalPixelMatrixRows")) or image.get("Rows") or 0
    line = outline(finding, float(width), float(height))
    if not line:
        return None
    kind = GraphicTypeValues.POINT if len(line) == 1 else GraphicTypeValues.POLYLINE
    source = _image_of(image, SourceImageForRegion, None if frames == 1 else frame)
    origin = None if frames == 1 or frame is None else PixelOriginInterpretationValues.FRAME
    return ImageRegion(kind, np.array(line), source, origin)


def _image_of(image: Dataset, kind: type[Reference], frame: int | None = None) -> Reference:
    return kind(str(image.SOPClassUID), str(image.SOPInstanceUID), None if frame is None else [frame])


def _concept(label: str) -> CodedConcept:
    """A code of our own that is the same for the same label."""
    value = re.sub(r"[^A-Z0-9]+", "-", label.upper()).strip("-")
    if len(value) > 16 or value != label.upper().replace(" ", "-") or not value:
        value = f"{value[:9]}-{hashlib.sha256(label.encode()).hexdigest()[:6]}".lstrip("-")
    return CodedConcept(value, _OWN_CODES, shorten(label))


def _comment(text: str) -> TextContentItem:
    return TextContentItem(CodedConcept("121106", "DCM", "Comment"), text, RelationshipTypeValues.CONTAINS)


def _device_uid(maker: Maker) -> str:
    named = f"gateway/{maker.manufacturer}/{maker.display_name}".encode()
    return f"2.25.{int.from_bytes(hashlib.sha256(named).digest()[:16], 'big')}"
