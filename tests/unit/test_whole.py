"""A whole object is told from one that was cut off, wherever the cut is and however its bytes come in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from gateway.contract import Header
from gateway.dicom import inflation
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import CutOff, WholeCheck, check_whole
from tests.peers.dicom_samples import encode, make_instance

PLAIN = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
ENCAPSULATED = [RLELossless, JPEGBaseline8Bit, JPEG2000Lossless, MPEG2MPML]
KINDS = [*PLAIN, *ENCAPSULATED, "report", "document"]


@cache
def sample(kind: str) -> bytes:
    if kind in ENCAPSULATED:
        dataset = make_instance("1.2.3", "1.2.4", "1.2.5", frames=3, size=16, transfer_syntax=kind)
        frames = [bytes([7 * number]) * (90 + 2 * number) for number in range(3)]
        dataset.PixelData = encapsulate(frames[:1] if kind == MPEG2MPML else frames)
        dataset["PixelData"].is_undefined_length = True
        return encode(dataset)
    if kind in PLAIN:
        data = encode(make_instance("1.2.3", "1.2.4", "1.2.5", size=16, transfer_syntax=kind))
        padded = kind == DeflatedExplicitVRLittleEndian and data.endswith(b"\0")
        return data[:-1] if padded else data
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(dataset, keyword)
    if kind == "report":
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
        item = Dataset()
        item.ValueType, item.TextValue = "TEXT", "no fracture"
        dataset.ContentSequence = [item]
        dataset["ContentSequence"].is_undefined_length = True
    else:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
        dataset.EncapsulatedDocument = b"%PDF" * 40
    return encode(dataset)


def judge(pieces: Iterator[bytes] | list[bytes]) -> Header:
    check = WholeCheck()
    for piece in pieces:
        check.feed(piece)
    return check.finish()


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_anywhere_is_never_whole(kind: str, tmp_path: Path) -> None:
    data = sample(kind)
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    assert check_whole(path).sop_instance_uid == "1.2.5"
    for length in range(len(data)):
        with pytest.raises(NotDicom):
            judge([data[:length]])
        if length % 50 == 0:
            path.write_bytes(data[:length])
            with pytest.raises(NotDicom):
                check_whole(path)


@given(
    kind=st.sampled_from(KINDS),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
    length=st.one_of(st.none(), st.integers(0, 10_000)),
)
def test_the_verdict_does_not_depend_on_how_the_bytes_come(
    kind: str, cuts: list[int], length: int | None
) -> None:
    data = sample(kind)
    if length is None:
        assert judge(pieces_of(data, cuts)) == judge([data])
        return
    with pytest.raises(NotDicom):
        judge(pieces_of(data[: length % len(data)], cuts))


@given(st.binary(max_size=400), st.sampled_from(KINDS), st.integers(0, 10_000))
def test_nonsense_raises_nothing_else(noise: bytes, kind: str, at: int) -> None:
    data = sample(kind)
    at %= len(data)
    try:
        judge([data[:at] + noise + data[at + len(noise) :]])
    except NotDicom as error:
        assert "noise" not in str(error)


def test_pixels_that_are_fewer_than_the_object_says_are_not_whole() -> None:
    for frames, change in ((1, ("Rows", 17)), (3, ("NumberOfFrames", 4)), (3, ("SamplesPerPixel", 3))):
        dataset = make_instance("1.2.3", "1.2.4", "1.2.5", size=16, frames=frames)
        judge([encode(dataset)])
        setattr(dataset, *change)
        with pytest.raises(CutOff):
            judge([encode(dataset)])
    dataset = pydicom.dcmread(BytesIO(sample(RLELossless)))
    dataset.NumberOfFrames = 4
    with pytest.raises(CutOff):
        judge([encode(dataset)])
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5", size=16)
    dataset.PixelData = b""
    with pytest.raises(CutOff):
        judge([encode(dataset)])


def test_a_fragment_that_is_cut_within_its_frame_does_not_hide_behind_zeros() -> None:
    data = sample(RLELossless)
    for lost in range(9, 300):
        with pytest.raises(NotDicom):
            judge([data[:-lost] + bytes(lost)])


def test_zeros_and_padding_behind_the_pixels_harm_nothing() -> None:
    for kind in (ExplicitVRLittleEndian, RLELossless):
        for count in (1, 7, 8, 500):
            judge([sample(kind), *[b"\0"] * count])
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5")
    dataset.add_new(0xFFFCFFFC, "OB", bytes(64))
    data = encode(dataset)
    judge([data])
    with pytest.raises(CutOff):
        judge([data[:-3]])


def test_what_inflates_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflation, "_PLAUSIBLE", 2**20)
    data = sample(DeflatedExplicitVRLittleEndian)
    start = len(data) - len(data.partition(b"1.2.840.10008.1.2.1.99")[2])
    head, tail = data[:start], data[start:]
    deflate = zlib.compressobj(wbits=-15)
    dataset = zlib.decompressobj(-15).decompress(tail[-(len(data) - _dataset_start(data)) :])
    bomb = deflate.compress(dataset + bytes(2**24)) + deflate.flush()
    assert len(bomb) < 2**16
    with pytest.raises(NotDicom, match="larger than any real"):
        judge([head + tail[: _dataset_start(data) - start] + bomb])


def _dataset_start(data: bytes) -> int:
    return 144 + int.from_bytes(data[140:144], "little")


def test_the_odd_files_of_pydicom_are_whole_but_for_those_that_are_not() -> None:
    cut: set[str] = set()
    judged = 0
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").glob("**/*.dcm"):
        try:
            check_whole(path)
            judged += 1
        except CutOff:
            cut.add(path.name)
        except NotDicom:
            continue
    assert cut == {"MR_truncated.dcm", "rtplan_truncated.dcm"}
    assert judged > 50
