"""Headers are read from as few bytes as they need, in every encoding."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from gateway.contract import Header
from gateway.dicom.part10 import MAX_HEADER, NotDicom, read_header, without_pixels
from tests.peers.dicom_samples import encode, make_instance

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_header_is_known_before_the_pixels_and_never_known_wrongly(syntax: str) -> None:
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5", transfer_syntax=syntax, size=256)
    nested = Dataset()
    nested.StudyInstanceUID = "9.9"
    nested.SeriesInstanceUID = "9.8"
    nested.Modality = "SR"
    dataset.ReferencedStudySequence = [nested]
    dataset["ReferencedStudySequence"].is_undefined_length = True
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.add_new(0x00091001, "OB", b"\xfe\xff\x00\xe0" * 50)
    data = encode(dataset)
    expected = Header("1.2.3", "1.2.4", "1.2.5", str(dataset.SOPClassUID), str(syntax), "DX")
    known = [read_header(data[:length]) for length in range(0, min(len(data), 6000), 3)]
    assert set(known) == {None, expected}
    assert known == sorted(known, key=lambda header: header is not None)
    if syntax != DeflatedExplicitVRLittleEndian:
        assert known.count(None) * 3 < 2000


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_header_without_pixels_is_a_whole_file(syntax: str) -> None:
    data = encode(make_instance("1.2.3", "1.2.4", "1.2.5", transfer_syntax=syntax, size=256))
    dataset = pydicom.dcmread(BytesIO(data))
    emptied = pydicom.dcmread(BytesIO(without_pixels(data)))
    assert not emptied.PixelData
    assert emptied.file_meta == dataset.file_meta
    del emptied.PixelData, dataset.PixelData
    assert emptied == dataset


def test_a_dataset_without_group_length_and_with_a_false_syntax_is_read_as_it_is() -> None:
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5", transfer_syntax=ImplicitVRLittleEndian)
    data = encode(dataset)
    honest = read_header(data)
    assert honest is not None
    start = data.index(b"\x02\x00\x00\x00UL")
    assert read_header(data[:start] + data[start + 12 :]) == honest
    implicit = b"1.2.840.10008.1.2\0"
    false = data.replace(b"UI\x12\x00" + implicit, b"UI\x14\x00" + b"1.2.840.10008.1.2.1\0")
    false = false[:start] + false[start + 12 :]
    read = read_header(false)
    assert read is not None
    assert read.series_instance_uid == "1.2.4"


def test_what_is_no_dicom_is_said() -> None:
    with pytest.raises(NotDicom):
        read_header(b"<html>" * 100)
    dataset = make_instance("1.2.3", "1.2.4")
    dataset.StudyInstanceUID = ""
    with pytest.raises(NotDicom):
        read_header(encode(dataset))
    dataset = make_instance(generate_uid(), "1.2.4")
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.add_new(0x00091001, "OB", bytes(MAX_HEADER))
    data = encode(dataset)
    assert read_header(data[: MAX_HEADER - 1]) is None
    with pytest.raises(NotDicom):
        read_header(data[:MAX_HEADER])
