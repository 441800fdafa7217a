"""The slides of the simulated Sectra: tiles, labels and files of any size, made when asked for.

A slide named `bulk-4x256MiB` exists without being made: four files of 256 MiB each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict

from gateway.simulate import patients
from gateway.simulate.patients import Identity
from gateway.simulate.radiographs import HEIGHT, WIDTH, draw_pixels
from gateway.simulate.samples import make_samples
from gateway.simulate.tissue import Pixels, encode, paint, paint_picture

BLOCK = 2**20
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
KINDS = {"jpg": "image/jpeg", "png": "image/png"}


class FileSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int


class Slide(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    width: int = 20_000
    height: int = 15_000
    tile_size: int = 256
    microns: float = 0.25
    seed: int = 1
    radiograph: str | None = None  # shows an X-ray image of this body part instead of tissue
    staining: str = "HE"
    block: str = "A1"
    body_part: str | None = None
    exam_code: str | None = None
    exam_description: str | None = None
    priority: int | None = 0
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    accession_number: str | None = None
    exam_id: str | None = None
    label: bool = True
    focal_planes: int = 1
    files: list[FileSpec] = []  # none: the files of the sample slide study
    single_file: bool = False  # sends its first file alone, as an octet-stream

    @property
    def top_level(self) -> int:
        return (max(self.width, self.height) - 1).bit_length()

    def measure_level(self, level: int) -> tuple[int, int]:
        shift = self.top_level - level
        return -(-self.width >> shift), -(-self.height >> shift)


def describe(slide: Slide, *, extended: bool, phi: bool) -> dict[str, Any]:
    formats = [{"mimeType": kind, "extension": extension} for extension, kind in KINDS.items()]
    info: dict[str, Any] = {
        "id": slide.id,
        "isStreamable": True,
        "imageSize": {"width": slide.width, "height": slide.height},
        "tileSize": {"width": slide.tile_size, "height": slide.tile_size},
        "micronsPerPixel": slide.microns,
        "focalPlanes": [{"id": str(each), "offsetUm": float(each)} for each in range(slide.focal_planes)],
        "opticalPaths": [{"id": "0", "description": "Brightfield"}],
        "storedTileFormat": formats[0],
        "availableTileFormats": formats,
        "fileFormat": {"mimeType": "application/octet-stream" if slide.files else "application/dicom"},
        "staining": {"displayName": slide.staining},
        "block": {"displayName": slide.block},
    }
    more: dict[str, Any] = {}
    if extended:
        more |= {
            "specimen": {"anatomy": slide.body_part, "description": slide.exam_description},
            "bodyPart": slide.body_part,
            "examCode": slide.exam_code,
            "examDescription": slide.exam_description,
            "stationName": "SCANNER1",
            "priority": slide.priority,
        }
    if phi:
        more |= {"seriesInstanceUid": slide.series_instance_uid, "lisSlideId": f"LIS-{slide.id}"}
    if extended and phi:
        issuer = "SIMULATED" if slide.accession_number else None
        more |= {
            "accessionNumberIssuer": issuer,
            "accessionNumber": slide.accession_number,
            "studyInstanceUid": slide.study_instance_uid,
            "examId": slide.exam_id,
            "examDateTime": "2024-03-15T10:15:00",
            "examFreeFields": [{"name": "origin", "value": "simulated"}],
        }
    return info | {key: value for key, value in more.items() if value is not None}


def describe_in_case(slide: Slide, *, phi: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": slide.id,
        "staining": {"displayName": slide.staining},
        "block": {"displayName": slide.block},
        "specimen": {"description": slide.exam_description},
    }
    if phi:
        described["lisSlideId"] = f"LIS-{slide.id}"
        if slide.series_instance_uid:
            described["seriesInstanceUid"] = slide.series_instance_uid
    return described


@lru_cache(maxsize=8)
def _draw_radiograph(body_part: str) -> Pixels:
    return (draw_pixels(body_part, 1) >> 4).astype(np.uint8)


def make_tile(slide: Slide, level: int, column: int, row: int, extension: str) -> bytes | None:
    if extension not in KINDS or not 0 <= level <= slide.top_level:
        return None
    width, height = slide.measure_level(level)
    left, upper = column * slide.tile_size, row * slide.tile_size
    if left >= width or upper >= height:
        return None
    right, lower = min(width, left + slide.tile_size), min(height, upper + slide.tile_size)
    x, y, size = (left / width, right / width), (upper / width, lower / width), (right - left, lower - upper)
    if slide.radiograph is not None:
        return encode(paint_picture(_draw_radiograph(slide.radiograph), x, y, size), extension)
    return encode(paint(x, y, size, slide.seed), extension)


def make_thumbnail(slide: Slide, width: int) -> bytes:
    """Stuck together from the tiles of the smallest level that is wide enough."""
    fitting = (level for level in range(slide.top_level) if slide.measure_level(level)[0] >= width)
    level = next(fitting, slide.top_level)
    size = slide.measure_level(level)
    whole = Image.new("RGB", size)
    for row in range(-(-size[1] // slide.tile_size)):
        for column in range(-(-size[0] // slide.tile_size)):
            tile = make_tile(slide, level, column, row, "jpg")
            if tile is not None:
                place = (column * slide.tile_size, row * slide.tile_size)
                whole.paste(Image.open(io.BytesIO(tile)), place)
    whole.thumbnail((width, width * 4))
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def make_label(slide: Slide) -> bytes:
    picture = Image.new("RGB", (240, 160), "white")
    ImageDraw.Draw(picture).text(
        (10, 10), f"{slide.id}\n{slide.block} {slide.staining}\nSIMULATED", fill="black"
    )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class File:
    name: str
    size: int
    data: bytes  # what the file repeats until it is full

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """Constant memory: pieces of the one block."""
        view = memoryview(self.data)
        while start < stop:
            offset = start % len(view)
            piece = view[offset : min(len(view), offset + stop - start)]
            yield piece
            start += len(piece)


@lru_cache(maxsize=64)
def _make_block(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(BLOCK)


def list_files(slide: Slide) -> list[File]:
    if slide.files:
        return [
            File(spec.name, spec.size, _make_block(slide.seed * 1000 + number))
            for number, spec in enumerate(slide.files)
        ]
    study = make_samples()[-1]
    return [File(f"level{number}.dcm", len(data), data) for number, data in enumerate(study.files)]


def find_bulk(slide_id: str) -> Slide | None:
    match = re.fullmatch(r"bulk-(\d{1,3})x(\d{1,6})(B|KiB|MiB|GiB)", slide_id)
    if match is None:
        return None
    size = int(match[2]) * UNITS[match[3]]
    names = [FileSpec(name=f"part{number}.bin", size=size) for number in range(int(match[1]))]
    return Slide(id=slide_id, width=100_000, height=80_000, files=names)


def _of_study(slide_id: str, identity: Identity, **more: Any) -> Slide:
    return Slide(
        id=slide_id,
        body_part=identity.body_part,
        exam_description=identity.description,
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        accession_number=identity.accession_number,
        exam_id=identity.study_id,
        **more,
    )


def make_slides() -> list[Slide]:
    single = [FileSpec(name="slide.svs", size=3_000_000)]
    pair = [FileSpec(name="slide.mrxs", size=4_000), FileSpec(name="data0.dat", size=2_500_000)]
    odd = [FileSpec(name="../../outside.svs", size=1_000), FileSpec(name="", size=1_000)]
    size = {"width": WIDTH * 16, "height": HEIGHT * 16, "microns": 31.25}
    sibling: dict[str, Any] = {"block": "A2", "staining": "Ki-67", "files": single}
    return [
        _of_study("slide-wsi", patients.SLIDE, width=1024, height=768, microns=0.5, seed=4),
        _of_study("slide-wsi-2", patients.SLIDE, seed=5, single_file=True, label=False, **sibling),
        *(_of_study(f"slide-{each.key}", each, radiograph=each.body_part, **size) for each in patients.XRAYS),
        Slide(id="slide-accession", accession_number=patients.CHEST.accession_number, files=pair, seed=6),
        Slide(id="slide-bare", files=pair, focal_planes=3, seed=7),
        Slide(id="slide-odd-names", files=odd, seed=8),
    ]
