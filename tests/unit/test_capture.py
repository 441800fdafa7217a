"""An image that lies about itself is drawn on, or it is said why not: no report fails over it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.contract import Finding
from gateway.delivery.capture import NotDrawable, draw_capture
from gateway.delivery.objects import Maker

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, at each such value

AT = datetime(2026, 1, 1, tzinfo=UTC)
MAKER = Maker("job-1", "Trauma", "Milvue", "3.1")


def picture() -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    image.SOPInstanceUID, image.StudyInstanceUID = generate_uid(), generate_uid()
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = 16
    image.SamplesPerPixel = image.NumberOfFrames = 1
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = bytes(512)
    image["PixelData"].VR = "OW"
    return image


def test_what_is_right_is_drawn_on() -> None:
    drawn = draw_capture(picture(), [], ["fracture"], MAKER, AT, 1)
    assert drawn.Rows == 16 and any(drawn.PixelData)


@pytest.mark.parametrize("value", [b"", b"\1", b"\1\0\0", b"\xff\xff" * 3, b"\xff\xff", b"\0\0"])
@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        *(
            (keyword, "US")
            for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
        ),
        *((keyword, "US") for keyword in ("HighBit", "PixelRepresentation", "PlanarConfiguration")),
        *((keyword, "DS") for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "PixelSpacing")),
        *((keyword, "IS") for keyword in ("NumberOfFrames", "PixelAspectRatio", "SeriesNumber")),
        *((keyword, "CS") for keyword in ("PatientOrientation", "Laterality", "BurnedInAnnotation")),
        ("PhotometricInterpretation", "CS"),
        ("LossyImageCompressionRatio", "DS"),
        ("RedPaletteColorLookupTableDescriptor", "US"),
        ("PatientBirthDate", "DA"),
        ("SmallestImagePixelValue", "US"),
        ("PixelPaddingValue", "US"),
        ("WindowCenter", "FD"),
    ],
)
def test_whatever_a_value_is_nothing_breaks(keyword: str, vr: str, value: bytes) -> None:
    image = picture()
    if keyword == "LossyImageCompressionRatio":
        image.LossyImageCompression = "01"
    tag = Tag(tag_for_keyword(keyword) or 0)
    image[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    try:
        draw_capture(image, [Finding("fracture", "none")], [], MAKER, AT, 1)
    except NotDrawable as error:
        assert "\xff" not in str(error)
