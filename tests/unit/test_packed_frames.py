"""What is written within packed frames beside the picture, by real encoders."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.privacy.frames import Frame

SECRET = b"PLANTED-4711"
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def packed(kind: str, **how: Any) -> bytes:
    out = BytesIO()
    NOISE.save(out, kind, **how)
    return out.getvalue()


FRAMES = {
    "baseline": packed("JPEG", comment=SECRET, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + SECRET),
    "progressive": packed("JPEG", comment=SECRET, progressive=True),
    "coloured": packed("JPEG", comment=SECRET, icc_profile=b"a profile of colours"),
    "wavelets": packed("JPEG2000", comment=SECRET, no_jp2=True),
    "tiles": packed("JPEG2000", comment=SECRET, no_jp2=True, tile_size=(16, 16)),
}
COMMENT = b"\xff\x64" + (len(SECRET) + 4).to_bytes(2, "big") + b"\0\1" + SECRET


def passed(data: bytes, cut: int) -> bytes:
    frame = Frame()
    return b"".join(bytes(frame.blanked(memoryview(data)[at : at + cut])) for at in range(0, len(data), cut))


def pixels(data: bytes) -> Any:
    return np.array(Image.open(BytesIO(data)))


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("cut", [1, 3, 100, 10**6])
def test_comments_and_tags_are_blanked_and_the_picture_stays(kind: str, cut: int) -> None:
    before = FRAMES[kind]
    assert SECRET in before
    after = passed(before, cut)
    assert SECRET not in after
    assert len(after) == len(before), "where the next one begins is told elsewhere too"
    assert np.array_equal(pixels(after), pixels(before))
    assert (b"a profile of colours" in after) == (kind == "coloured")


def test_a_comment_of_one_tile_is_blanked_too() -> None:
    """Behind the first tile's pixels, where its neighbour begins."""
    before = FRAMES["tiles"]
    at = before.index(b"\xff\x90", before.index(b"\xff\x93"))
    length = int.from_bytes(before[at + 6 : at + 10], "big") + len(COMMENT)
    head = before[at : at + 6] + length.to_bytes(4, "big") + before[at + 10 : at + 12]
    before = before[:at] + head + COMMENT + before[at + 12 :]
    after = passed(before, 1000)
    assert (before.count(SECRET), after.count(SECRET)) == (2, 0)
    assert np.array_equal(pixels(after), pixels(before))


@given(st.binary(max_size=200), st.integers(1, 50))
def test_whatever_it_is_as_much_comes_out(data: bytes, cut: int) -> None:
    for begin in (b"", b"\xff\xd8", b"\xff\x4f"):
        assert len(passed(begin + data, cut)) == len(begin + data)
    if data[:2] not in (b"\xff\xd8", b"\xff\x4f"):
        assert passed(data, cut) == data
