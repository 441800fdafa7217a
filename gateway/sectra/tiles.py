"""Deep Zoom: a slide as a pyramid of tiles, each level half the size of the one above it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.contract import NeedsHuman, Permanent
from gateway.extras import is_installed, say_missing
from gateway.sectra.messages import ImageInfo, Size

LARGEST_THUMBNAIL = 2048  # some 50 MB while it is pasted
_MOST_TILES = 1024


@dataclass(frozen=True, slots=True)
class Level:
    number: int
    width: int
    height: int
    tile: Size

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile.width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile.height)

    def places(self) -> Iterable[tuple[int, int]]:
        return ((column, row) for row in range(self.rows) for column in range(self.columns))


def level_for(info: ImageInfo, size: int) -> Level:
    """The smallest level whose longer edge has at least `size` pixels, else the slide itself."""
    if info.image_size is None or info.tile_size is None:
        raise Permanent(
            "Sectra doesn't tell the size of the slide or its tiles", "Look at the slide in Sectra."
        )
    width, height = info.image_size.width, info.image_size.height
    top = (max(width, height) - 1).bit_length()
    number = min(top, (max(size, 1) - 1).bit_length())
    while number < top and -(-max(width, height) >> (top - number)) < size:
        number += 1
    halvings = top - number
    level = Level(number, -(-width >> halvings), -(-height >> halvings), info.tile_size)
    if level.columns * level.rows > _MOST_TILES:
        raise Permanent("the slide's tiles are too small for its size", "Look at the slide in Sectra.")
    return level


def extension_for(info: ImageInfo) -> str:
    """JPEG where there is a choice."""
    offered = [
        format.extension for format in (*info.available_tile_formats, info.stored_tile_format) if format
    ]
    known = [extension.lstrip(".") for extension in offered if extension]
    return next(
        (extension for extension in known if extension.lower() in ("jpg", "jpeg")),
        known[0] if known else "jpg",
    )


async def assemble(level: Level, tiles: dict[tuple[int, int], bytes], size: int) -> bytes:
    """One JPEG of all tiles, its longer edge `size` pixels or less."""
    if not is_installed("reports"):
        raise NeedsHuman(
            f"a slide's overview can't be drawn: {say_missing('reports')}", "Look at it in Sectra."
        )
    from PIL import Image

    try:
        return await asyncio.to_thread(_paste, level, tiles, size)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Permanent("Sectra sent a tile that is no picture", "Look at the slide in Sectra.") from error


def _paste(level: Level, tiles: dict[tuple[int, int], bytes], size: int) -> bytes:
    from PIL import Image

    canvas = Image.new("RGB", (level.width, level.height), "white")
    for (column, row), data in tiles.items():
        left, upper = column * level.tile.width, row * level.tile.height
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "BMP", "WEBP", "JPEG2000", "TIFF")) as tile:
            if tile.width > 4 * level.tile.width or tile.height > 4 * level.tile.height:
                raise ValueError("a tile larger than announced")
            canvas.paste(tile.convert("RGB").crop((0, 0, *_room(level, left, upper))), (left, upper))
    canvas.thumbnail((size, size), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    canvas.save(written, "JPEG", quality=90)
    return written.getvalue()


def _room(level: Level, left: int, upper: int) -> tuple[int, int]:
    return min(level.tile.width, level.width - left), min(level.tile.height, level.height - upper)
