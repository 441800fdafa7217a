"""Texts as character sets write them: what the standard shows, and whatever else can be written in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.privacy.charsets import DEFAULT, decode, encode, read_charsets, readings

# PS3.5 annexes H to K, byte by byte.
SHOWN = [
    (
        r"\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        r"ISO 2022 IR 13\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (
        r"\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    (
        r"\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    ),
    ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
    ("ISO_IR 192", b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=", "Wang^XiaoDong=王^小東="),
    ("ISO_IR 203", b"\xbcuvrard^\xb4ofie", "Œuvrard^Žofie"),
    ("iso-ir 100 ", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
]
ALPHABETS = {
    "ISO_IR 100": "äÖß×ÿ",
    "ISO_IR 101": "łĄżőŕ",
    "ISO_IR 109": "ĝĤŭşż",
    "ISO_IR 110": "ķŠēņų",
    "ISO_IR 144": "ЖпщѓЏ",
    "ISO_IR 127": "قبنزر",
    "ISO_IR 126": "Διονς",
    "ISO_IR 138": "שרונב",
    "ISO_IR 148": "ğŞıöİ",
    "ISO_IR 203": "Œ€Žšÿ",
    "ISO_IR 166": "นามสฤ",
    "ISO_IR 13": "ﾔﾏﾀﾞ｡",
    "GB18030": "王小东ä한",
    "GBK": "王小东們é",
    "ISO_IR 192": "王한äЖ𝄞",
    r"\ISO 2022 IR 87": "山田まロЖ",
    r"\ISO 2022 IR 87\ISO 2022 IR 159": "山丂丄まé",
    r"ISO 2022 IR 13\ISO 2022 IR 87": "ﾔ｡山まロ",
    r"\ISO 2022 IR 149": "홍吉길洪한",
    r"\ISO 2022 IR 58": "张小东西骨",
    r"ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 126\ISO 2022 IR 149": "äЖΔ한é",
}


@pytest.mark.parametrize(("declared", "value", "text"), SHOWN)
def test_what_the_standard_shows_is_read_and_written_so(declared, value, text):
    charsets = read_charsets(declared.encode())
    assert charsets.known
    assert decode(value, "PN", charsets) == text
    assert encode(text, "PN", charsets) == value


@pytest.mark.parametrize("declared", ALPHABETS)
@pytest.mark.parametrize("vr", ["PN", "LO", "LT"])
@given(st.data())
def test_whatever_is_written_reads_alike(declared, vr, data):
    charsets = read_charsets(declared.encode())
    text = data.draw(st.text(ALPHABETS[declared] + "aZ7 -\n\\^=~*", max_size=20))
    assert decode(encode(text, vr, charsets), vr, charsets) == text


@given(st.binary(max_size=40), st.sampled_from([*ALPHABETS, "", "NOBODY'S", r"\ISO_IR 192"]))
def test_reading_never_fails(value, declared):
    charsets = read_charsets(declared.encode())
    for text in (decode(value, "LT", charsets), *readings(value, "LT", charsets)):
        encode(text, "LT", charsets)


def test_what_nobody_knows_is_taken_for_latin_1():
    charsets = read_charsets(b"ISO_IR 999")
    assert not charsets.known
    assert decode(b"Z\xfcrich", "LO", charsets) == decode(b"Z\xfcrich", "LO", DEFAULT) == "Zürich"
    assert encode("骨", "LO", charsets) == b"?"


def test_lines_that_are_not_begun_anew_are_read_as_they_are_meant():
    """As pydicom writes Korean, and others Japanese."""
    korean, japanese = read_charsets(rb"\ISO 2022 IR 149"), read_charsets(rb"\ISO 2022 IR 87")
    assert decode(b"\x1b$)C\xc8\xab\n\xb1\xe6", "LT", korean) == "홍\n길"
    assert "山\n田" in list(readings(b"\x1b$B;3\nED\x1b(B", "LT", japanese))
