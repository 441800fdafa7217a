"""What the simulated Milvue finds: always the same box in the first image, as DICOM objects and as JSON."""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.uid import UID, BasicTextSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.simulate.patients import make_uid, write_part10

Finds: TypeAlias = "list[str] | tuple[str, ...]"
FOUND = ("fracture",)
MAKER = "Simulated Milvue"
KEPT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName"),
)
UNREADABLE = (
    InvalidDicomError,
    RuntimeError,
    NotImplementedError,
    AttributeError,
    ValueError,
    KeyError,
    OSError,
)


def place_box(header: Dataset) -> tuple[int, int, int, int]:
    columns, rows = int(header.get("Columns") or 256), int(header.get("Rows") or 256)
    return columns * 2 // 5, rows * 2 // 5, columns * 3 // 5, rows * 11 // 20


def _draw(data: bytes, header: Dataset, text: str) -> Image.Image:
    size = int(header.get("Columns") or 256), int(header.get("Rows") or 256)
    try:
        pixels = dcmread(io.BytesIO(data)).pixel_array.astype(np.float32)
        pixels = pixels[0] if pixels.ndim == 4 or int(header.get("NumberOfFrames") or 1) > 1 else pixels
        pixels = (pixels - pixels.min()) * (255 / max(1.0, float(np.ptp(pixels))))
        picture = Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    except UNREADABLE:  # an image that can't be shown still gets its finding
        picture = Image.new("RGB", size, (20, 20, 20))
    draw = ImageDraw.Draw(picture)
    draw.rectangle(place_box(header), outline=(255, 200, 0), width=3)
    draw.text((8, 8), text, fill=(255, 200, 0))
    return picture


def _begin(header: Dataset, sop_class: UID, command: str, kind: str) -> Dataset:
    result, study = Dataset(), str(header.StudyInstanceUID)
    for keyword in KEPT:
        setattr(result, keyword, header.get(keyword, ""))
    result.SpecificCharacterSet = header.get("SpecificCharacterSet") or "ISO_IR 192"
    result.SOPClassUID = sop_class
    result.SOPInstanceUID = UID(make_uid("result", study, command, kind))
    result.SeriesInstanceUID = UID(make_uid("result series", study, command, kind))
    result.SeriesNumber = 9000 if kind == "capture" else 9001
    result.InstanceNumber = 1
    result.Manufacturer = MAKER
    result.ManufacturerModelName = command
    result.SeriesDescription = f"Milvue {command}"
    result.ContentDate = result.SeriesDate = str(header.get("StudyDate") or "20240101")
    result.ContentTime = result.SeriesTime = str(header.get("StudyTime") or "120000")
    return result


def _write(finds: Finds, between: str) -> str:
    return ", ".join(f"{each}{between}0.91" for each in finds) or "normal"


def make_capture(header: Dataset, data: bytes, command: str, finds: Finds = FOUND) -> bytes:
    result = _begin(header, SecondaryCaptureImageStorage, command, "capture")
    picture = _draw(data, header, f"{command}: {_write(finds, ' ')}")
    result.Modality = str(header.get("Modality") or "OT")
    result.ConversionType = "WSD"
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.PatientOrientation = ""
    side = str(header.get("Laterality") or header.get("ImageLaterality") or "")
    result.Laterality = side if side in ("L", "R") else ""
    result.BurnedInAnnotation = "NO"
    result.SamplesPerPixel = 3
    result.PhotometricInterpretation = "RGB"
    result.PlanarConfiguration = 0
    result.Columns, result.Rows = picture.size
    result.BitsAllocated, result.BitsStored, result.HighBit = 8, 8, 7
    result.PixelRepresentation = 0
    pixels = picture.tobytes()
    result.PixelData = pixels + b"\0" * (len(pixels) % 2)
    result["PixelData"].VR = "OB"
    return write_part10(result, ExplicitVRLittleEndian)


def _make_code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _make_evidence(header: Dataset) -> Dataset:
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = UID(str(header.SOPClassUID))
    instance.ReferencedSOPInstanceUID = UID(str(header.SOPInstanceUID))
    series.SeriesInstanceUID = UID(str(header.SeriesInstanceUID))
    series.ReferencedSOPSequence = Sequence([instance])
    study.StudyInstanceUID = UID(str(header.StudyInstanceUID))
    study.ReferencedSeriesSequence = Sequence([series])
    return study


def make_report(header: Dataset, command: str, finds: Finds = FOUND) -> bytes:
    result = _begin(header, BasicTextSRStorage, command, "report")
    result.Modality = "SR"
    result.ReferencedPerformedProcedureStepSequence = Sequence([])
    result.CompletionFlag, result.VerificationFlag = "COMPLETE", "UNVERIFIED"
    result.PerformedProcedureCodeSequence = Sequence([])
    result.CurrentRequestedProcedureEvidenceSequence = Sequence([_make_evidence(header)])
    result.ValueType, result.ContinuityOfContent = "CONTAINER", "SEPARATE"
    result.ConceptNameCodeSequence = Sequence([_make_code("18748-4", "Diagnostic imaging report", "LN")])
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.ConceptNameCodeSequence = Sequence([_make_code("121071", "Finding")])
    finding.TextValue = _write(finds, ", score ").capitalize()
    result.ContentSequence = Sequence([finding])
    return write_part10(result, ExplicitVRLittleEndian)


def _make_hl7(header: Dataset, finds: Finds = FOUND) -> str:
    now = "20240315103000"
    control = make_uid("hl7", str(header.StudyInstanceUID))[-18:]
    who, sex = header.get("PatientID", ""), header.get("PatientSex", "")
    name, born = header.get("PatientName", ""), header.get("PatientBirthDate", "")
    order = header.get("AccessionNumber", "")
    lines = (
        f"MSH|^~\\&|MILVUE|SIMULATED|RIS|HOSPITAL|{now}||ORU^R01|{control}|P|2.5",
        f"PID|1||{who}||{name}||{born}|{sex}",
        f"OBR|1|{order}|{order}|XR^X-ray|||{now}",
        f"OBX|1|TX|SMARTURGENCES^Milvue||{_write(finds, ', score ').capitalize()}||||||F",
    )
    return "\r".join(lines) + "\r"


def describe_urgences(
    headers: list[Dataset], version: str, language: str, finds: Finds = FOUND
) -> dict[str, Any]:
    findings = [
        {
            "value": each,
            "translation": {"en": each.capitalize(), language: _translate(each, language)},
            "label": "abnormal",
            "score": 0.91,
        }
        for each in finds
    ]
    instances = []
    for number, header in enumerate(headers):
        left, upper, right, lower = place_box(header)
        boxes = [
            {**finding, "top_left": [left, upper], "bottom_right": [right, lower]} for finding in findings
        ]
        for box in boxes:
            del box["translation"]
        instances.append(
            {
                "SOPInstanceUID": str(header.SOPInstanceUID),
                "SeriesInstanceUID": str(header.SeriesInstanceUID),
                "body_parts": [str(header.get("BodyPartExamined") or "unknown").lower()],
                "findings": findings if number == 0 else [],
                "bounding_boxes": boxes if number == 0 else [],
            }
        )
    words = [_translate(each, language) for each in finds]
    return {
        "StudyInstanceUID": str(headers[0].StudyInstanceUID),
        "status": "done",
        "version": version,
        "flag": {"score": 0.91, "label": "abnormal"} if finds else {"score": 0.04, "label": "normal"},
        "hl7": _make_hl7(headers[0], finds),
        "findings": findings or [{"value": "fracture", "label": "normal", "score": 0.04}],
        "instances": instances,
        "report": {
            "title": "X-ray",
            "techniques": ["Digital radiography"],
            "results": [{"region": instances[0]["body_parts"][0], "items": words}],
        },
    }


def _translate(value: str, language: str) -> str:
    known = {"de": "Fraktur", "es": "Fractura"} if value == "fracture" else {}
    return known.get(language, value.capitalize())


def describe_expert(headers: list[Dataset], version: str) -> dict[str, Any]:
    instances = []
    for header in headers:
        left, upper, right, lower = place_box(header)
        lines = [[left, upper, right, lower], [left, upper, right, upper]]
        measures = [
            {"type": "angle", "value": "axis", "measure": 12.5, "unit": "°", "lines": lines},
            {"type": "length", "value": "width", "measure": 38.0, "unit": "mm", "lines": lines[:1]},
        ]
        instances.append(
            {
                "SOPInstanceUID": str(header.SOPInstanceUID),
                "SeriesInstanceUID": str(header.SeriesInstanceUID),
                "body_parts": [str(header.get("BodyPartExamined") or "unknown").lower()],
                "measures": measures,
            }
        )
    study = str(headers[0].StudyInstanceUID)
    return {"StudyInstanceUID": study, "status": "done", "version": version, "instances": instances}
