"""Small, valid DICOM studies, made on the spot and free of anybody's data."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    generate_uid,
)


def make_instance(
    study: str,
    series: str,
    sop: str | None = None,
    *,
    number: int = 1,
    size: int = 64,
    frames: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
    seed: int = 0,
) -> Dataset:
    """`frames` above 1 makes a multi-frame instance of `frames × size × size` bytes."""
    multi = frames > 1
    sop_class = (
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        if multi
        else DigitalXRayImageStorageForPresentation
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(sop) if sop else generate_uid()
    meta.TransferSyntaxUID = UID(transfer_syntax)
    ds = Dataset()
    ds.file_meta = meta
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "SECONDARY"] if multi else ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.ContentTime = "101112"
    ds.AccessionNumber = "A" + study.rpartition(".")[2][:12]
    ds.Modality = "OT" if multi else "DX"
    ds.Manufacturer = "Samples"
    ds.ReferringPhysicianName = ""
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class
    reference.ReferencedSOPInstanceUID = ds.SOPInstanceUID
    ds.ReferencedImageSequence = [reference]
    ds.ReferencedImageSequence.is_undefined_length = True
    reference.is_undefined_length_sequence_item = True
    ds.PatientName = "Sample^Någon"
    ds.PatientID = "P" + study.rpartition(".")[2][:8]
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.StudyID = "S1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = number
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    if multi:
        ds.NumberOfFrames = frames
    ds.Rows = ds.Columns = size
    ds.BitsAllocated = 8 if multi else 16
    ds.BitsStored = 8 if multi else 12
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    noise = np.random.default_rng(seed + number).bytes(frames * size * size * (1 if multi else 2))
    ds.PixelData = noise if multi else (np.frombuffer(noise, dtype="<u2") & 0x0FFF).tobytes()
    ds["PixelData"].VR = "OB" if multi else "OW"
    return ds


def encode(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_study(
    count: int = 4, *, series: int = 1, study: str | None = None, size: int = 64, frames: int = 1
) -> Iterator[Dataset]:
    """`count` instances, spread over `series` series."""
    study = study or generate_uid()
    series_uids = [generate_uid() for _ in range(series)]
    for number in range(count):
        yield make_instance(study, series_uids[number % series], number=number + 1, size=size, frames=frames)


def write_study(
    folder: Path, count: int = 4, *, series: int = 1, size: int = 64, frames: int = 1
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(make_study(count, series=series, size=size, frames=frames)):
        paths.append(folder / f"{number:05}.dcm")
        paths[-1].write_bytes(encode(dataset))
    return paths
