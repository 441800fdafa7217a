"""Paints tissue: the same picture at any size, piece by piece, so that no slide costs any memory."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
GLASS = np.array([244, 242, 245], dtype=np.float32)
PINK = np.array([226, 160, 190], dtype=np.float32)
VIOLET = np.array([110, 62, 138], dtype=np.float32)


def paint(x: tuple[float, float], y: tuple[float, float], size: tuple[int, int], seed: int = 0) -> Pixels:
    """The piece between `x` and `y`, in fractions of the image's width, as RGB of `size` (width, height)."""
    width, height = size
    u = (x[0] + (np.arange(width, dtype=np.float32) + 0.5) * np.float32((x[1] - x[0]) / width))[None, :]
    v = (y[0] + (np.arange(height, dtype=np.float32) + 0.5) * np.float32((y[1] - y[0]) / height))[:, None]
    wobble = 0.06 * np.sin(9 * u + seed) * np.cos(7 * v - seed) + 0.03 * np.sin(23 * u + 17 * v)
    tissue = np.hypot(u - 0.45, (v - 0.38) * 1.25) + wobble < 0.31
    tissue |= np.hypot((u - 0.82) * 1.3, v - 0.3) + wobble < 0.11
    glands = np.sin(61 * u + 3 * np.sin(19 * v)) * np.sin(53 * v + 2 * np.sin(23 * u + seed))
    nuclei = np.sin(811 * u + 5 * np.sin(97 * v)) * np.sin(797 * v + 5 * np.sin(89 * u))
    share = np.clip(0.25 + 0.45 * (glands > 0.35) + 0.5 * (nuclei > 0.55), 0, 1)[..., None]
    colour = np.where(tissue[..., None], PINK + (VIOLET - PINK) * share, GLASS)
    return colour.astype(np.uint8)


def paint_picture(
    picture: Pixels, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int]
) -> Pixels:
    """The same piece of a given picture."""
    width = picture.shape[1]
    box = (x[0] * width, y[0] * width, x[1] * width, min(y[1] * width, picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box))


def encode(pixels: Pixels, kind: str = "jpg") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if kind == "png" else "JPEG", quality=85)
    return buffer.getvalue()
