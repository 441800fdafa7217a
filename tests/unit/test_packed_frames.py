"""What is written within packed frames beside the picture, by real encoders."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from gateway.privacy.colours import HEAD
from gateway.privacy.frames import Frame

SECRET = b"PLANTED-4711"
COLOURS = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WRITTEN = COLOURS.replace("RGB built-in".encode("utf-16-be"), SECRET.decode().encode("utf-16-be"))
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def packed(kind: str, **how: Any) -> bytes:
    out = BytesIO()
    NOISE.save(out, kind, **how)
    return out.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def segment(marker: int, content: bytes) -> bytes:
    return marker.to_bytes(2, "big") + (len(content) + 2).to_bytes(2, "big") + content


FRAMES = {
    "baseline": packed("JPEG", comment=SECRET, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + SECRET),
    "progressive": packed("JPEG", comment=SECRET, progressive=True),
    "coloured": packed("JPEG", comment=SECRET, icc_profile=WRITTEN),
    "coloured in many parts": packed("JPEG", comment=SECRET, icc_profile=WRITTEN + bytes(150_000)),
    "of many pictures": packed("MPO", comment=SECRET, save_all=True, append_images=[NOISE]),
    "wavelets": packed("JPEG2000", comment=SECRET, no_jp2=True),
    "tiles": packed("JPEG2000", comment=SECRET, no_jp2=True, tile_size=(16, 16)),
    "boxes": packed("JPEG2000", comment=SECRET) + box(b"xml ", SECRET) + box(b"uuid", bytes(16) + SECRET),
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
    assert SECRET.decode().encode("utf-16-be") not in after
    if kind == "coloured":
        found = Image.open(BytesIO(after)).info["icc_profile"]
        assert found[HEAD:] != WRITTEN[HEAD:] and ImageCms.ImageCmsProfile(BytesIO(found))
        seen, told = (in_other_colours(each) for each in (found, WRITTEN))
        assert np.array_equal(seen, told), "it shows the same colours"


def in_other_colours(profile: bytes) -> Any:
    other = ImageCms.createProfile("LAB")
    made = ImageCms.profileToProfile(
        NOISE, ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.ImageCmsProfile(other), outputMode="LAB"
    )
    assert made is not None
    return np.array(made)


@pytest.mark.parametrize("cut", [1, 2, 7, 10**6])
def test_nothing_hides_between_scans_or_behind_the_end(cut: int) -> None:
    before = FRAMES["progressive"]
    scan = before.rindex(b"\xff\xda")
    hiding = (
        segment(0xFFFE, SECRET) + segment(0xFFE1, b"Exif\0\0" + SECRET) + segment(0xFFE2, b"MPF\0" + SECRET)
    )
    thumbnail = segment(0xFFE0, b"JFXX\0\x10" + SECRET) + segment(0xFFE0, b"JFIF\0" + bytes(9) + SECRET)
    before = before[:scan] + hiding + thumbnail + before[scan:] + SECRET + bytes(6) + SECRET
    after = passed(before, cut)
    assert (len(after), SECRET in after) == (len(before), False)
    assert np.array_equal(pixels(after), pixels(before))


@pytest.mark.parametrize("size", [8, 10, 100, 998])
@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_in_many_fragments_hides_nothing_either(kind: str, size: int) -> None:
    """In each of which it may begin anew, and be cut again on its way."""
    before = FRAMES[kind] + bytes(len(FRAMES[kind]) % 2)
    frame, after = Frame(), b""
    for _ in range(2):
        for at in range(0, len(before), size):
            fragment = before[at : at + size]
            frame.begin(len(fragment))
            for begin in range(0, len(fragment), 3):
                after += bytes(frame.blanked(memoryview(fragment)[begin : begin + 3]))
    assert SECRET not in after
    assert after[: len(before)] == after[len(before) :], "the second as the first"
    if kind not in ("of many pictures", "coloured in many parts"):
        assert np.array_equal(pixels(after[: len(before)]), pixels(before))


@pytest.mark.parametrize("cut", [1, 5, 10**6])
def test_boxes_of_jpeg_xl_are_blanked_but_for_the_picture(cut: int) -> None:
    begins = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    picture = box(b"jxlp", b"\0\0\0\0\xff\x0a" + bytes(range(200)))
    told = [box(kind, SECRET) for kind in (b"Exif", b"xml ", b"jumb", b"brob", b"jbrd")]
    large = (1).to_bytes(4, "big") + b"Exif" + (16 + len(SECRET)).to_bytes(8, "big") + SECRET
    last = box(b"jxlp", b"\x80\0\0\1" + bytes(range(100)))
    before = b"".join((begins, *told, picture, large, last, (0).to_bytes(4, "big") + b"free" + SECRET))
    after = passed(before, cut)
    assert (len(after), SECRET in after) == (len(before), False)
    assert begins in after and picture in after and last in after


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
    signatures = b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cjP  \r\n\x87\n"
    for begin in (b"", *signatures):
        assert len(passed(begin + data, cut)) == len(begin + data)
    if not data.startswith((b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0c")):
        assert passed(data, cut) == data
