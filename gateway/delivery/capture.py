"""An image with its findings drawn, as a Secondary Capture: for whoever can't show a report's regions."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from unicodedata import combining

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.contract import Finding
from gateway.delivery.objects import Maker, shorten, stamp
from gateway.delivery.shapes import outline, words
from gateway.dicom.heading import frames_of
from gateway.dicom.reading import unreadable

_INK, _SHADE = (255, 200, 0), (0, 0, 0)
_MOST_SAMPLES = 200_000_000
_MOST_IMAGES = 1000  # of one run; the next one's have higher numbers
_UNDECODABLE: tuple[type[BaseException], ...] = (
    *unreadable(),
    ArithmeticError,
    RuntimeError,
    OSError,
    MemoryError,
)

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class NotDrawable(ValueError):
    """Why an image can't be drawn on."""


def draw_capture(
    image: Dataset,
    findings: Sequence[Finding],
    notes: Sequence[str],
    maker: Maker,
    at: datetime,
    number: int,
    frame: int | None = None,
) -> Dataset:
    """`notes`: lines that belong to the whole picture. `frame`: which of several is drawn on."""
    picture = render(image, frame)
    _draw(picture, findings, notes)
    capture = Dataset()
    capture.file_meta = FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    capture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    capture.SpecificCharacterSet = "ISO_IR 192"
    stamp(capture, image)
    capture.SOPClassUID = SecondaryCaptureImageStorage
    capture.SOPInstanceUID = UID(
        maker.make_uid("capture", str(image.SOPInstanceUID), *([str(frame)] if frame else []))
    )
    capture.file_meta.MediaStorageSOPInstanceUID = capture.SOPInstanceUID
    capture.SeriesInstanceUID = UID(maker.make_series_uid("captures"))
    capture.Modality = "OT"
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.ContentDate = capture.InstanceCreationDate = f"{at:%Y%m%d}"
    capture.ContentTime = capture.InstanceCreationTime = f"{at:%H%M%S}"
    capture.Manufacturer = shorten(maker.manufacturer or maker.display_name)
    capture.ManufacturerModelName = shorten(maker.display_name)
    if maker.version:
        capture.SoftwareVersions = shorten(maker.version)
    capture.SeriesDescription = shorten(f"{maker.display_name}: findings drawn")
    capture.SeriesNumber, capture.InstanceNumber = 9002, (maker.run - 1) * _MOST_IMAGES + number
    capture.DerivationDescription = shorten(f"Findings of {maker.display_name} drawn by the gateway")
    capture.PatientOrientation = image.get("PatientOrientation") or ""
    if (ratio := _aspect_of(image)) is not None:
        capture.PixelAspectRatio = ratio
    side = str(image.get("Laterality") or image.get("ImageLaterality") or "")
    capture.Laterality = side if side in ("L", "R") else ""
    capture.BurnedInAnnotation = "YES" if image.get("BurnedInAnnotation") == "YES" else "NO"
    if image.get("LossyImageCompression") == "01":
        capture.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in image:
                capture[keyword] = image[keyword]
    capture.SourceImageSequence = [_reference(image, frame)]
    _put_pixels(capture, picture)
    return capture


def render(image: Dataset, frame: int | None = None) -> Image.Image:
    """As a viewer shows it at first: the first window, MONOCHROME1 inverted."""
    frames = frames_of(image)
    if frames > 1 and not frame:
        raise NotDrawable("it has several frames, and nobody says which")
    if frame and frame > frames:
        raise NotDrawable(f"it has no frame {frame}")
    if "NumberOfFrames" in image:
        image.NumberOfFrames = frames
    if not 0 < _samples_of(image) <= _MOST_SAMPLES:
        raise NotDrawable("it is too large, or has no pixels")
    try:
        raw = pixel_array(image, index=(frame or 1) - 1)
        _take_over(image, (frame or 1) - 1)
        photometric = str(image.get("PhotometricInterpretation"))
        if photometric == "PALETTE COLOR":
            raw = apply_color_lut(raw, image)
        if raw.ndim == 3:
            bits = 8 * raw.itemsize if photometric == "PALETTE COLOR" else int(image.BitsStored)
            scale = 255 / (2**bits - 1)
            return Image.fromarray((raw[..., :3] * scale).clip(0, 255).astype(np.uint8), "RGB")
        grey = _window(raw, image)
    except _UNDECODABLE as error:
        raise NotDrawable(f"its pixels can't be decoded ({type(error).__name__})") from None
    if photometric == "MONOCHROME1":
        grey = 1 - grey
    return Image.fromarray((grey * 255).round().astype(np.uint8), "L").convert("RGB")


def _samples_of(image: Dataset) -> int:
    try:
        area = int(image.get("Rows") or 0) * int(image.get("Columns") or 0)
        return area * int(image.get("SamplesPerPixel") or 1)
    except _UNDECODABLE as error:
        raise NotDrawable(f"its size can't be read ({type(error).__name__})") from None


def _take_over(image: Dataset, index: int) -> None:
    """What is said of this frame alone, as far as it tells how its pixels are shown."""
    each = image.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*(image.get("SharedFunctionalGroupsSequence") or []), *each[index : index + 1]):
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in groups.get(keyword) or []:
                image.update(item)


def _window(raw: Pixels, image: Dataset) -> Pixels:
    """Between 0 and 1."""
    rescaled = apply_modality_lut(raw, image)
    values: Pixels = rescaled.astype(np.float64)
    shown: Pixels
    if image.get("VOILUTSequence"):
        table = image.VOILUTSequence[0]
        looked_up = apply_voi_lut(rescaled, image, prefer_lut=True).astype(np.float64)
        shown = (looked_up / (2 ** int(table.LUTDescriptor[2]) - 1)).clip(0, 1)
        return shown
    center, width = _first(image.get("WindowCenter")), _first(image.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        low, high = np.percentile(values, (0.5, 99.5))
    elif str(image.get("VOILUTFunction") or "LINEAR") == "SIGMOID":
        shown = 1 / (1 + np.exp((-4 * (values - center) / width).clip(-500, 500)))
        return shown
    elif image.get("VOILUTFunction") == "LINEAR_EXACT" or width <= 1:
        low, high = center - width / 2, center + width / 2
    else:
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    shown = ((values - low) / max(high - low, 1e-9)).clip(0, 1)
    return shown


def _aspect_of(image: Dataset) -> list[str] | None:
    """Of its pixels, height to width, where they aren't square."""
    try:
        if told := image.get("PixelAspectRatio"):
            return [str(int(part)) for part in told]
        spacing = image.get("PixelSpacing") or image.get("ImagerPixelSpacing") or (1, 1)
        ratio = Fraction(float(spacing[0]) / float(spacing[1])).limit_denominator(1000)
    except _UNDECODABLE:
        return None
    return None if ratio == 1 or ratio <= 0 else [str(ratio.numerator), str(ratio.denominator)]


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float):
        return float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None


def _draw(picture: Image.Image, findings: Sequence[Finding], notes: Sequence[str]) -> None:
    width, height = picture.size
    thick = max(2, round(max(width, height) / 400))
    font = ImageFont.load_default(max(12, round(max(width, height) / 50)))
    draw = ImageDraw.Draw(picture)
    listed = list(notes)
    for finding in findings:
        line = outline(finding, width, height)
        if not line:
            listed.append(words(finding))
            continue
        for ink, size in ((_SHADE, thick + 2), (_INK, thick)):
            if len(line) == 1:
                x, y = line[0]
                reach = 4 * thick
                draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=size)
            else:
                draw.line(line, fill=ink, width=size, joint="curve")
        if finding.shape != "polyline" or finding.measure or finding.score is not None:
            place = min(x for x, _ in line), min(y for _, y in line) - 2 * thick
            _write(draw, picture, words(finding), place, font)
    _write(draw, picture, "\n".join(listed), (2 * thick, height), font)


def _write(
    draw: ImageDraw.ImageDraw,
    picture: Image.Image,
    text: str,
    at: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Above that place, and inside the picture. The letters that are always at hand have no accents."""
    plain = unicodedata.normalize("NFKD", text.replace("°", " deg"))
    drawn = "".join(
        letter if letter == "\n" or " " <= letter <= "~" else "?" for letter in plain if not combining(letter)
    )
    left, _, right, _ = draw.multiline_textbbox((0, 0), drawn, font=font, stroke_width=2)
    if right - left > picture.width:
        columns = int(max(map(len, drawn.split("\n"))) * picture.width / (right - left))
        drawn = "\n".join(textwrap.fill(line, max(1, columns - 1)) for line in drawn.split("\n"))
    left, upper, right, lower = draw.multiline_textbbox((0, 0), drawn, font=font, stroke_width=2)
    x = max(0.0, min(at[0], picture.width - (right - left))) - left
    y = max(0.0, min(at[1], picture.height) - (lower - upper)) - upper
    draw.multiline_text((x, y), drawn, fill=_INK, font=font, stroke_width=2, stroke_fill=_SHADE)


def _reference(image: Dataset, frame: int | None) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    if frame:
        reference.ReferencedFrameNumber = frame
    return reference


def _put_pixels(capture: Dataset, picture: Image.Image) -> None:
    capture.SamplesPerPixel = 3
    capture.PhotometricInterpretation = "RGB"
    capture.PlanarConfiguration = 0
    capture.Columns, capture.Rows = picture.size
    capture.BitsAllocated, capture.BitsStored, capture.HighBit = 8, 8, 7
    capture.PixelRepresentation = 0
    pixels = picture.tobytes()
    capture.PixelData = pixels + b"\0" * (len(pixels) % 2)
    capture["PixelData"].VR = "OB"
