"""What of somebody else's JSON is read, and what isn't."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.json_text import DEEPEST, BadText, Bounds, NotJson, TooMuch, Unread, count_values, parse, read

BOUNDS = Bounds(10_000, 1000)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_json_is_read_as_it_is(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read(raw, Bounds(2**20, 10**6)) == value


@given(VALUES)
def test_values_are_never_counted_short(value: Any) -> None:
    def count(of: Any) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return 1 + sum(map(count, inner))

    assert count_values(json.dumps(value).encode()) >= count(value)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda raw: b'{"a": "' + raw + b'"}'))
def test_whatever_is_sent_is_read_or_refused(raw: bytes) -> None:
    try:
        read(raw, BOUNDS)
    except Unread as trouble:
        assert str(trouble).startswith("the body ")


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        (b"", NotJson),
        (b"NaN", NotJson),
        (b"[1e999]", NotJson),
        (b"\xff\xfe[\x00]\x00", NotJson),
        (b'"\xed\xa0\x80"', NotJson),
        (b'"a\x00b"', NotJson),
        (b"1" * 5000, NotJson),
        (b"[" * 900 + b"]" * 900, NotJson),
        (b"[" * (DEEPEST + 2) + b"]" * (DEEPEST + 2), NotJson),
        (b'{"a":' * 300 + b"1" + b"}" * 300, NotJson),
        (b" " * 10_001, TooMuch),
        (b"[" + b"1," * 1000 + b"1]", TooMuch),
        (b'{"a": ["\\u0000"]}', BadText),
        (b'{"a\\ud800": 1}', BadText),
        (b'"half \\uD83D"', BadText),
    ],
)
def test_what_nobody_can_use_is_refused(raw: bytes, refusal: type[Unread]) -> None:
    with pytest.raises(refusal):
        read(raw, BOUNDS)


def test_what_is_only_kept_is_put_right() -> None:
    raw = b'{"context": {"a\\u0000": ["\\ud83d\\ude00 \\ud83d"]}, "b": "\\\\u0000"}'
    assert read(raw, Bounds(1000, 100, mended=["context"])) == {
        "context": {"a\ufffd": ["\U0001f600 \ufffd"]},
        "b": "\\u0000",
    }


def test_what_is_passed_on_keeps_any_text_but_is_json() -> None:
    assert parse(b'\xef\xbb\xbf{"a": "\\u0000"}') == {"a": "\0"}
    for raw in (b"NaN", b"1e999", b"[" * 5000, b"[" * 200 + b"]" * 200, b"\xff"):
        with pytest.raises(NotJson):
            parse(raw)
