"""Small X-ray images with drawn bones: enough anatomy to look at, in valid CR and DX objects."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from gateway.simulate.patients import Identity, write_part10

WIDTH, HEIGHT = 384, 448
TOP = 4095  # 12 bits
VIEWS = {"HAND": ("PA", "LLO"), "KNEE": ("AP", "LL"), "CHEST": ("PA", "LL")}
ANATOMY = {"HAND": ("85562004", "Hand"), "KNEE": ("72696002", "Knee"), "CHEST": ("51185008", "Chest")}
VIEW_CODES = {
    "PA": ("399348003", "postero-anterior"),
    "LLO": ("399098006", "left posterior oblique"),
    "AP": ("399003008", "antero-posterior"),
    "LL": ("399173006", "left lateral"),
}


def make_code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _draw_hand(draw: ImageDraw.ImageDraw, lean: float) -> None:
    draw.ellipse((110, 250, 280, 400), fill=70)
    for finger in range(5):
        x = 110 + finger * 40 + lean * (finger - 2)
        reach = (120, 50, 30, 45, 100)[finger]
        draw.line((195, 390, x, reach + 140), fill=170, width=14)
        draw.line((x, reach + 130, x + lean, reach + 70), fill=185, width=12)
        draw.line((x + lean, reach + 62, x + 2 * lean, reach + 15), fill=190, width=10)
    draw.line((180, 448, 185, 395), fill=200, width=24)
    draw.line((225, 448, 215, 395), fill=190, width=18)


def _draw_knee(draw: ImageDraw.ImageDraw, lean: float) -> None:
    draw.rectangle((90, 0, 300, 448), fill=60)
    draw.line((195 - lean, 0, 195, 170), fill=190, width=60)
    draw.ellipse((125, 150, 265, 225), fill=195)
    draw.ellipse((128, 235, 262, 290), fill=190)
    draw.line((195, 270, 195 + lean, 448), fill=185, width=52)
    draw.line((262, 290, 268, 448), fill=160, width=16)
    draw.ellipse((165 + lean, 130, 225 + lean, 190), fill=215)


def _draw_chest(draw: ImageDraw.ImageDraw, lean: float) -> None:
    draw.rounded_rectangle((20, 20, 364, 448), 90, fill=120)
    draw.ellipse((55, 70, 180 + lean, 380), fill=35)
    draw.ellipse((205 - lean, 70, 330, 380), fill=35)
    draw.line((192, 0, 192, 448), fill=190, width=30)
    draw.ellipse((165, 220, 290, 370), fill=165)
    for rib in range(8):
        y = 60 + rib * 38
        draw.arc((45, y, 190, y + 90), 180, 320, fill=130, width=7)
        draw.arc((195, y, 340, y + 90), 220, 360, fill=130, width=7)


DRAWN = {"HAND": _draw_hand, "KNEE": _draw_knee, "CHEST": _draw_chest}


def draw_pixels(body_part: str, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    canvas = Image.new("L", (WIDTH, HEIGHT), 12)
    DRAWN[body_part](ImageDraw.Draw(canvas), 14.0 * (number - 1))
    smooth = np.asarray(canvas.filter(ImageFilter.GaussianBlur(4)), dtype=np.float64) / 255
    noise = np.random.default_rng(number).normal(0, 0.015, smooth.shape)
    pixels: np.ndarray[tuple[int, int], np.dtype[np.uint16]] = (np.clip(smooth + noise, 0, 1) * TOP).astype(
        "<u2"
    )
    return pixels


def _put_pixels(dataset: Dataset, body_part: str, number: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = HEIGHT, WIDTH
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    dataset.PixelData = draw_pixels(body_part, number).tobytes()
    dataset["PixelData"].VR = "OW"


def _describe_cr(dataset: Dataset, view: str) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.ViewPosition = view
    dataset.PlateID = "PLATE1"
    dataset.ImagerPixelSpacing = ["0.5", "0.5"]
    dataset.Laterality = "L"


def _describe_dx(dataset: Dataset, body_part: str, view: str) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.DetectorType = "DIRECT"
    dataset.DetectorID = "D1"
    dataset.DetectorConfiguration = "AREA"
    dataset.ImagerPixelSpacing = ["0.5", "0.5"]
    dataset.ImageLaterality = "U" if body_part == "CHEST" else "L"
    dataset.AnatomicRegionSequence = Sequence([make_code(*ANATOMY[body_part])])
    dataset.ViewPosition = view
    view_code = make_code(*VIEW_CODES[view])
    view_code.ViewModifierCodeSequence = Sequence([])
    dataset.ViewCodeSequence = Sequence([view_code])
    dataset.PatientOrientation = ["L", "F"] if view in ("PA", "AP") else ["A", "F"]
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.PositionerType = ""


def make_radiographs(identity: Identity) -> tuple[bytes, ...]:
    made = []
    for number, view in enumerate(VIEWS[identity.body_part], start=1):
        plain = identity.modality == "CR"
        sop_class = ComputedRadiographyImageStorage if plain else DigitalXRayImageStorageForPresentation
        dataset = identity.make_dataset(sop_class, number)
        dataset.BodyPartExamined = identity.body_part
        dataset.SeriesDescription = identity.description
        dataset.PatientOrientation = ["L", "F"]
        if plain:
            _describe_cr(dataset, view)
        else:
            _describe_dx(dataset, identity.body_part, view)
        _put_pixels(dataset, identity.body_part, number)
        made.append(write_part10(dataset, ExplicitVRLittleEndian))
    return tuple(made)
