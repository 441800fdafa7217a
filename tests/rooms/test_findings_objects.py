"""Objects made from findings alone: a report that other software reads, and drawings that people look at."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGLosslessSV1, RLELossless

from gateway.contract import Finding, Finished, NeedsHuman, Retryable
from gateway.delivery.findings import Made, make_objects
from gateway.delivery.objects import Maker
from gateway.dicom.annotations import read_findings
from gateway.simulate.samples import make_samples
from tests.peers.dicom_samples import encode
from tests.rooms.test_result_objects import complaints

AT = datetime(2026, 1, 2, 3, 4, 5)
MAKER = Maker("job-1", "Milvue trauma", "Milvue", "3.1")
SAMPLES = make_samples()
INK = (255, 200, 0)
LOSSLESS = ("lossless", "lossless, of any prediction")


def images_in(folder: Path, files: Sequence[bytes]) -> tuple[Dataset, list[Path], list[str]]:
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"image-{number}.dcm")
        paths[-1].write_bytes(data)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return headers[0], paths, [str(dataset.SOPInstanceUID) for dataset in headers]


def every_kind(first: str, second: str) -> Finished:
    return Finished(
        summary="abnormal (Fracture)",
        findings=(
            Finding("Fracture", "box", ((100, 120), (200, 5000)), first, 0.913),
            Finding("Fracture", "point", ((300, 300),), first),
            Finding("axis", "polyline", ((10, 10), (200, 300)), second, measure="12,5°"),
            Finding("Lésion " * 20, "polygon", ((50, 50), (90, 60), (60, 90)), second, 0.5),
            Finding("Effusion", "none", score=0.7),
            Finding("Nowhere", "box", ((float("nan"), 1), (2, 3)), first, float("nan")),
        ),
    )


async def make(folder: Path, files: Sequence[bytes], finished: Finished | None = None) -> Made:
    header, paths, uids = images_in(folder, files)
    return await make_objects(folder, header, paths, finished or every_kind(*uids[:2]), MAKER, AT)


@pytest.mark.parametrize("number", range(4))
async def test_everything_made_is_valid_and_of_the_same_patient(tmp_path: Path, number: int) -> None:
    """Of a hand (CR), a knee and a chest (DX), and a slide of several frames."""
    files = SAMPLES[number].files
    made = await make(tmp_path, files)
    header = pydicom.dcmread(BytesIO(files[0]), stop_before_pixels=True)
    for path in made.files:
        assert complaints(path) == set()
        result = pydicom.dcmread(path)
        for keyword in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyInstanceUID",
            "AccessionNumber",
        ):
            assert result[keyword].value == header[keyword].value
        assert (result.Manufacturer, result.ManufacturerModelName) == ("Milvue", "Milvue trauma")
        assert result.SoftwareVersions == "3.1"
        assert result.SeriesDescription.startswith("Milvue trauma: ")
        assert result.SeriesInstanceUID != header.SeriesInstanceUID
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in made.files}) == len(made.files[:2])
    frames = int(header.get("NumberOfFrames", 1)) > 1
    assert len(made.files) == (1 if frames else 3)
    assert len(made.remarks) == (2 if frames else 0), "what isn't drawn is said"


async def test_a_report_says_what_was_seen_and_where(tmp_path: Path) -> None:
    files = SAMPLES[1].files
    made = await make(tmp_path, files)
    report = Comprehensive3DSR.from_dataset(pydicom.dcmread(made.files[0]))
    assert report.content[0].name.meaning == "Imaging Measurement Report"
    groups = next(
        item for item in report.content[0].ContentSequence if item.name.meaning == "Imaging Measurements"
    ).ContentSequence
    assert len(groups) == 6
    told = [{(item.name.meaning, item.ValueType): item for item in group.ContentSequence} for group in groups]
    uids = [str(pydicom.dcmread(BytesIO(data)).SOPInstanceUID) for data in files]

    fracture = told[0]
    region = fracture["Image Region", "SCOORD"]
    assert region.GraphicData == [100, 120, 200, 120, 200, 448, 100, 448, 100, 120], "inside the image"
    named = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == uids[0]
    assert fracture["Certainty of Finding", "NUM"].MeasuredValueSequence[0].NumericValue == 0.913
    assert fracture["Finding", "CODE"].value.meaning == "Fracture"
    assert fracture["Finding", "CODE"].value == told[1]["Finding", "CODE"].value
    assert fracture["Algorithm Name", "TEXT"].value == "Milvue trauma"
    assert fracture["Algorithm Version", "TEXT"].value == "3.1"
    assert fracture["Algorithm Manufacturer", "TEXT"].value == "Milvue"
    assert told[1]["Image Region", "SCOORD"].GraphicType == "POINT"

    angle = told[2]["axis", "NUM"].MeasuredValueSequence[0]
    assert (angle.NumericValue, angle.MeasurementUnitsCodeSequence[0].CodeValue) == (12.5, "deg")
    assert (
        told[2]["Image Region", "SCOORD"].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == uids[1]
    )
    assert told[3]["Comment", "TEXT"].value == "Lésion " * 20 + "0.50", "whole, where a code is cut"
    for group in told[4:]:
        assert ("Image Region", "SCOORD") not in group
    assert ("Certainty of Finding", "NUM") not in told[5], "no number is no score"
    observer = [
        item for item in report.content[0].ContentSequence if item.name.meaning == "Device Observer Name"
    ]
    assert observer[0].value == "Milvue trauma"
    assert report.PreliminaryFlag == "PRELIMINARY" and report.VerificationFlag == "UNVERIFIED"


async def test_a_drawing_shows_the_image_and_the_finding_in_its_place(tmp_path: Path) -> None:
    made = await make(tmp_path, SAMPLES[1].files)
    drawn = pydicom.dcmread(made.files[1])
    source = pydicom.dcmread(BytesIO(SAMPLES[1].files[0]))
    pixels, grey = drawn.pixel_array, source.pixel_array / 4095 * 255
    for x, y in ((100, 200), (200, 300), (150, 120)):
        assert tuple(pixels[y, x]) == INK
    away = np.s_[20:100, 250:380]
    assert np.abs(pixels[away].astype(float) - grey[away][..., None]).max() < 2
    assert drawn.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert drawn.BurnedInAnnotation == "NO"


async def test_a_finding_in_a_frame_is_drawn_on_that_frame(tmp_path: Path) -> None:
    """Of a tile of a slide; a frame that isn't there is named, and nothing drawn."""
    files = SAMPLES[3].files[:1]
    source = pydicom.dcmread(BytesIO(files[0]))
    uid = str(source.SOPInstanceUID)
    box = ((10, 20), (5000, 60))
    seen = tuple(Finding("cell", "box", box, uid, frame=frame) for frame in (2, 99, 2))
    made = await make(tmp_path, files, Finished("cells", findings=seen))
    assert made.remarks == ("image 2 has no drawing: it has no frame 99",)
    assert [path.name for path in made.files] == ["report.dcm", "capture-0001.dcm"]
    assert all(complaints(path) == set() for path in made.files)
    drawn = pydicom.dcmread(made.files[1])
    assert drawn.SourceImageSequence[0].ReferencedFrameNumber == 2
    pixels, tile = drawn.pixel_array, source.pixel_array[1]
    assert pixels.shape == tile.shape and tuple(pixels[20, 100]) == INK
    assert np.abs(pixels[80:150, 60:200].astype(int) - tile[80:150, 60:200]).max() < 2
    told = read_findings(made.files[0])
    assert [(finding.frame, max(finding.points)[0]) for finding in told] == [(2, source.Columns)] * 2


def compressed(image: Dataset, how: str) -> bytes:
    """As stored radiographs usually are, by dcmtk."""
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.dcm"), Path(folder, "packed.dcm")
        image.save_as(plain)
        subprocess.run(["dcmcjpeg", how, plain, packed], check=True)
        return packed.read_bytes()


async def test_any_label_makes_a_valid_report_and_odd_images_keep_how_they_lie(tmp_path: Path) -> None:
    image = pydicom.dcmread(BytesIO(SAMPLES[0].files[0]))
    image.PatientOrientation = ["L", "F"]
    image.PixelSpacing = ["0.2", "0.1"]
    image.add_new("NumberOfFrames", "IS", 1)
    data = encode(image)
    at = data.index(b"\x28\x00\x08\x00IS\x02\x00")
    data = data[: at + 8] + b"1A" + data[at + 10 :]
    uid = str(image.SOPInstanceUID)
    labels = ("", " ", "a\tb\nc", "x" * 70 + "\t", "\\")
    seen = tuple(Finding(label, "box", ((10, 20), (50, 60)), uid) for label in labels)
    made = await make(tmp_path, [data], Finished(" ", findings=seen))
    assert [path.name for path in made.files] == ["report.dcm", "capture-0001.dcm"] and not made.remarks
    assert [complaints(path) for path in made.files] == [set(), set()]
    assert [finding.label for finding in read_findings(made.files[0])][:3] == ["finding", "finding", "a b c"]
    drawn = pydicom.dcmread(made.files[1])
    assert (list(drawn.PatientOrientation), list(drawn.PixelAspectRatio)) == (["L", "F"], [2, 1])


def with_pixels(change: str) -> bytes:
    """The same picture, told otherwise."""
    image = pydicom.dcmread(BytesIO(SAMPLES[0].files[0]))
    values = image.pixel_array
    match change:
        case "inverted":
            image.PhotometricInterpretation = "MONOCHROME1"
            image.PixelData = (4095 - values).tobytes()
        case "rgb":
            image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
            image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
            image.PixelData = np.repeat((values / 4095 * 255).round().astype(np.uint8), 3).tobytes()
            image["PixelData"].VR = "OB"
            del image.WindowCenter, image.WindowWidth
        case "signed and rescaled":
            image.BitsStored, image.HighBit = 16, 15
            image.PixelRepresentation, image.RescaleIntercept, image.RescaleSlope = 1, "-1000", "2"
            image.WindowCenter, image.WindowWidth = ["3096", "1"], ["8192", "1"]
        case "lookup":
            table = Dataset()
            table.LUTDescriptor = [4096, 0, 12]
            table.LUTData = np.arange(4096).astype("<u2").tobytes()
            table["LUTData"].VR = "OW"
            image.VOILUTSequence = [table]
            del image.WindowCenter, image.WindowWidth
        case "lossless":
            return compressed(image, "+e1")
        case "lossless, of any prediction":
            return compressed(image, "+el")
        case "run-length":
            image.compress(RLELossless)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue()


async def test_the_same_picture_comes_out_however_it_is_told(tmp_path: Path) -> None:
    kinds = ("plain", "inverted", "rgb", "signed and rescaled", "lookup", "run-length", *LOSSLESS)
    files = [with_pixels(kind) for kind in kinds]
    paths = []
    for number, data in enumerate(files):
        image = pydicom.dcmread(BytesIO(data))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number + 1}")
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, image)
        paths.append(buffer.getvalue())
    finished = Finished(
        "x", findings=tuple(Finding("F", "point", ((300, 30),), f"2.25.{n + 1}") for n in range(len(kinds)))
    )
    made = await make(tmp_path, paths, finished)
    assert made.remarks == ()
    pictures = [pydicom.dcmread(path).pixel_array.astype(int) for path in made.files[1:]]
    for kind, picture in zip(kinds, pictures, strict=True):
        assert np.abs(picture - pictures[0]).max() <= 2, kind


async def test_an_image_that_cannot_be_decoded_has_no_drawing_and_it_is_said(tmp_path: Path) -> None:
    image = pydicom.dcmread(BytesIO(SAMPLES[0].files[0]))
    image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 nothing \xff\xd9"])
    image["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, image)
    made = await make(tmp_path, [buffer.getvalue(), SAMPLES[0].files[1]])
    assert [path.name for path in made.files] == ["report.dcm", "capture-0002.dcm"]
    assert len(made.remarks) == 1 and made.remarks[0].startswith("image 1 has no drawing: its pixels can't")


UNKNOWN = {
    "PatientSex": ("U", "m", "Male", ""),
    "PatientBirthDate": ("1970", "19700000", "00000000", "1970.01.02"),
    "StudyDate": ("0000", "", "2026.01.02", "20260100"),
    "StudyTime": ("240000", "10:11:12", "", "1"),
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("number", range(4))
async def test_an_unidentified_patients_results_are_made_and_say_what_the_study_says(
    tmp_path: Path, number: int
) -> None:
    image = pydicom.dcmread(BytesIO(SAMPLES[0].files[0]))
    for keyword, values in UNKNOWN.items():
        setattr(image, keyword, values[number])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, image)
    seen = Finding("Fracture", "box", ((10, 20), (50, 60)), str(image.SOPInstanceUID))
    made = await make(tmp_path, [buffer.getvalue()], Finished("x", findings=(seen,)))
    assert [path.name for path in made.files] == ["report.dcm", "capture-0001.dcm"] and not made.remarks
    for path in made.files:
        told = pydicom.dcmread(path)
        assert {keyword: str(told[keyword].value or "") for keyword in UNKNOWN} == {
            keyword: values[number] for keyword, values in UNKNOWN.items()
        }


async def test_a_drawing_is_made_even_where_no_report_can_be(tmp_path: Path) -> None:
    """Of a maker's own class of images, which highdicom doesn't know."""
    image = pydicom.dcmread(BytesIO(SAMPLES[0].files[0]))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID("1.2.3.4")
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, image)
    seen = Finding("Fracture", "box", ((10, 20), (50, 60)), str(image.SOPInstanceUID))
    made = await make(tmp_path, [buffer.getvalue()], Finished("x", findings=(seen,)))
    assert [path.name for path in made.files] == ["capture-0001.dcm"]
    assert made.remarks == ("no report could be made (KeyError)",)


async def test_a_second_try_makes_the_same_objects(tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        files = (await make(folder, SAMPLES[0].files)).files
        made.append([path.read_bytes() for path in files])
    assert made[0] == made[1]
    moment = (folder / "report.dcm").stat().st_mtime_ns
    await make(folder, SAMPLES[0].files)
    assert (folder / "report.dcm").stat().st_mtime_ns == moment, "nothing is made again that is there"
    await make(folder, SAMPLES[0].files, Finished("other", findings=(Finding("Effusion", "none"),)))
    assert (folder / "report.dcm").stat().st_mtime_ns != moment


async def test_the_workshop_is_waited_for_only_so_long_and_leaves_nobody_behind(tmp_path: Path) -> None:
    header, paths, uids = images_in(tmp_path, SAMPLES[0].files)
    with pytest.raises(Retryable, match=r"longer than 0\.05 s"):
        await make_objects(tmp_path, header, paths, every_kind(*uids), MAKER, AT, limit=0.05)
    assert workers_in(tmp_path) == []


async def test_what_breaks_in_the_workshop_is_told_without_anybodys_data(tmp_path: Path) -> None:
    header, paths, uids = images_in(tmp_path, SAMPLES[0].files)
    paths.append(tmp_path / "KARL")
    with pytest.raises(NeedsHuman, match="no objects can be made") as caught:
        await make_objects(tmp_path, header, paths, every_kind(*uids), MAKER, AT)
    told = f"{caught.value} {caught.value.advice} {json.dumps(caught.value.detail)}"
    assert "KARL" not in told and "Synthetic" not in told
    assert caught.value.detail["places"]


async def test_the_workshop_dies_with_whom_it_works_for(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    os.mkfifo(request)  # it waits for its request
    program = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    worker = ("-m", "gateway.delivery.findings_process", str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", program, *worker])
    try:
        writer = await asyncio.wait_for(asyncio.to_thread(request.open, "w"), 30)  # it has come so far
        assert set(workers_in(tmp_path)) > {parent.pid}
    finally:
        parent.kill()
        parent.wait()
    async with asyncio.timeout(30):
        while workers_in(tmp_path):
            await asyncio.sleep(0.02)
    writer.close()


def test_the_daemon_never_loads_what_costs_200_mb() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, gateway.run; print('highdicom' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "False"


def workers_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"gateway.delivery.findings_process" in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found
