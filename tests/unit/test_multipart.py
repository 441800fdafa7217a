"""The multipart parser, without I/O: the same events come out however the bytes were cut."""

from __future__ import annotations

import random

import pytest

from gateway.dicom.multipart import (
    Data,
    Malformed,
    Parser,
    PartBegin,
    PartEnd,
    Truncated,
    Writer,
    boundary_of,
    media_type_of,
)

NEAR = b"\r\n--B0\r\n--B\r\r\n--\r\n--BB\n--B\r\n\r\n-\r"
PARTS = [
    ({"content-type": "application/dicom"}, b"pixels"),
    ({}, b""),
    ({"content-type": "application/dicom", "content-location": "a; b"}, NEAR),
    ({"content-length": "2"}, b"\r\n"),
]
BODY = (
    b"a preamble\r\nwith --B1 in it\r\n--B1 \t\r\n"
    b"Content-Type: application/dicom\r\n\r\npixels\r\n--B1\r\n"
    b"\r\n\r\n--B1\r\n"
    b"Content-Type:application/dicom\r\ncontent-location: a;\r\n b\r\n\r\n" + NEAR + b"\r\n--B1\r\n"
    b"Content-Length: 2\r\n\r\n\r\n\r\n--B1--\r\nan epilogue\r\n--B1\r\n"
)


def parts_of(parser: Parser, *chunks: bytes) -> list[tuple[dict[str, str], bytes]]:
    parts: list[tuple[dict[str, str], bytes]] = []
    inside = False
    for chunk in chunks:
        for event in parser.feed(chunk):
            match event:
                case PartBegin(headers):
                    assert not inside
                    inside = True
                    parts.append((dict(headers), b""))
                case Data(data):
                    assert inside
                    parts[-1] = (parts[-1][0], parts[-1][1] + bytes(data))
                case PartEnd():
                    assert inside
                    inside = False
    assert inside is False or not parser.complete
    return parts


def test_every_cut_in_two_gives_the_same_parts() -> None:
    for cut in range(len(BODY) + 1):
        parser = Parser("B1")
        assert parts_of(parser, BODY[:cut], BODY[cut:]) == PARTS, cut
        parser.close()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11])
def test_every_size_of_chunks_gives_the_same_parts(size: int) -> None:
    parser = Parser("B1")
    chunks = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    assert parts_of(parser, *chunks) == PARTS
    parser.close()


def test_bare_line_feeds_are_read_and_keep_a_carriage_return_of_the_data() -> None:
    body = b"--B1\nContent-Type: x/y\n\nends with \r\n--B1\n\n\n--B1--\n"
    for cut in range(len(body)):
        assert parts_of(Parser("B1"), body[:cut], body[cut:]) == [
            ({"content-type": "x/y"}, b"ends with \r"),
            ({}, b""),
        ]


def test_a_body_of_every_length_but_the_whole_is_truncated() -> None:
    whole = BODY.index(b"--B1--") + len(b"--B1--")
    for length in range(whole):
        parser = Parser("B1")
        parts_of(parser, BODY[:length])
        assert not parser.complete
        with pytest.raises(Truncated):
            parser.close()


@pytest.mark.parametrize("body", [b"--B1--", b"--B1--\r\n", b"\r\n--B1--\r\n"])
def test_no_parts_at_all_is_a_whole_body(body: bytes) -> None:
    parser = Parser("B1")
    assert parts_of(parser, body) == []
    parser.close()


def test_what_is_no_multipart_is_said_at_once_and_not_gathered() -> None:
    with pytest.raises(Malformed):
        parts_of(Parser("B1"), b"<html>" * 20_000)
    with pytest.raises(Malformed):
        parts_of(Parser("B1"), b"--B1\r\n" + b"X-Long: y\r\n" * 10_000)
    with pytest.raises(Malformed):
        parts_of(Parser("B1"), b"--B1\r\nno header\r\n\r\n")


def test_random_parts_survive_random_cuts() -> None:
    chance = random.Random(7)
    for _ in range(200):
        writer = Writer()
        boundary = boundary_of(writer.content_type)
        alphabet = [b"\r\n", b"--", boundary.encode(), b"\r", b"\n", b"-", b"\0\xff", boundary[:9].encode()]
        sent = []
        for _ in range(chance.randrange(4)):
            data = b"".join(chance.choices(alphabet, k=chance.randrange(30)))
            if f"\r\n--{boundary}".encode() not in b"\r\n" + data:
                sent.append(({"content-type": "application/dicom"}, data))
        body = b"".join(writer.begin() + data for _, data in sent) + writer.end()
        cuts = sorted(chance.choices(range(len(body)), k=6))
        chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        parser = Parser(boundary)
        assert parts_of(parser, *chunks) == sent
        parser.close()


def test_data_are_views_of_the_chunk_they_came_in() -> None:
    parser = Parser("B1")
    list(parser.feed(b"--B1\r\n\r\nfirst"))
    chunk = bytes(100_000)
    (event,) = parser.feed(chunk)
    assert isinstance(event, Data)
    assert event.data is chunk


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', "abc"),
        ('multipart/related;boundary="a b:c;d=e";type=application/dicom', "a b:c;d=e"),
        ("Multipart/Related; BOUNDARY==_abc==", "=_abc=="),
    ],
)
def test_boundaries_are_read_as_they_are_written(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary
    assert media_type_of(content_type) == "multipart/related"


@pytest.mark.parametrize(
    "content_type", ["", "application/dicom", "multipart/related", "multipart/related; boundary="]
)
def test_no_boundary_is_said(content_type: str) -> None:
    with pytest.raises(Malformed):
        boundary_of(content_type)
