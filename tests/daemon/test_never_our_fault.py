"""Whatever is sent to a door, the answer isn't that we broke."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.embedded import server as embedded
from tests.peers.gateway import TOKENS, TRAUMA, Hospital
from tests.peers.ia_vendor import ia_vendor
from tests.peers.ia_ward import KIDNEY, callbacks, invoke, ward

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ODD = [
    "\0",
    "\r\n",
    "\ud800",
    "\udead",
    "ö",
    "\u2028",
    "%00",
    "%ff",
    "%",
    "..",
    "{x}",
    "'",
    '"',
    "\\",
    "",
    "x" * 3000,
]
odd_text = st.sampled_from(ODD) | st.text(max_size=20)
odd_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=8,
)
segment = st.sampled_from(
    [
        "x" * 3000,
        "%00",
        "%0a",
        "%ff",
        "%",
        "%zz",
        "..",
        ";",
        "\xff",
        "1",
        "slide-wsi",
        "results",
        "x",
        "%d8%00",
    ]
)
header_bytes = st.binary(max_size=30).map(lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0"))
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


class Ward:
    def __init__(self, house: Hospital, there: dict[str, str]) -> None:
        self.house = house
        self.there = there
        self.invocation = house.invocation("slide-wsi", applicationId=KIDNEY)
        self.address = urlsplit(house.gateway.url)

    def send(self, method: str, target: str, headers: list[bytes], body: bytes) -> int:
        """The status; 0 where the connection was closed without a word."""
        lines = [
            f"{method} {target} HTTP/1.1".encode("latin-1", "replace"),
            b"Host: gateway",
            b"Connection: close",
        ]
        lines += [*headers, b"Content-Length: %d" % len(body)]
        where = str(self.address.hostname), int(self.address.port or 0)
        with socket.create_connection(where, timeout=60) as line:
            try:
                line.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                told = line.recv(20)
            except ConnectionError:
                return 0
        return int(told.split()[1]) if told else 0

    def be_known(self) -> None:
        """Tokens that were right before are looked at, however many wrong ones come."""
        vendors = b"Authorization: Bearer " + self.there["token"].encode()
        assert self.send("GET", f"{urlsplit(self.there['url']).path}/info", [vendors], b"") == 200
        for role in ("admin", "operator"):
            programs = b"Authorization: Bearer " + TOKENS[role].encode()
            assert self.send("GET", "/api/v1/jobs", [programs], b"") == 200

    def broken(self) -> list[dict[str, Any]]:
        return [
            event for event in self.house.gateway.events() if event["event"].startswith("a request broke")
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    async with embedded.serve(folder / "postgres", fast=True) as url:
        with ia_vendor(mode="never") as vendor:
            async with ward(folder, url, vendor) as house:
                await invoke(house, "slide-wsi")
                await house.job_on("slide-wsi", "analysing")
                opened = Ward(house, callbacks(vendor))
                await asyncio.to_thread(opened.be_known)
                yield opened


def often() -> settings:
    return settings(
        max_examples=150,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


async def beside(doors: Ward, test: Any) -> None:
    """Its calls are made in a thread, since the peers live here."""
    await asyncio.to_thread(test)
    assert doors.broken() == []


async def test_no_path_and_no_header_breaks_anything(doors: Ward) -> None:
    roots = [
        "/ia",
        f"/ia/{TRAUMA}",
        "/api/v1/jobs",
        "/dicomweb",
        urlsplit(doors.there["url"]).path,
        "/healthz",
        "/static",
        "/sign-in",
        "",
    ]
    tokens = [b"Bearer " + doors.there["token"].encode(), b"Bearer " + TOKENS["admin"].encode()]

    @often()
    @given(
        st.sampled_from(METHODS),
        st.sampled_from(roots),
        st.lists(segment, max_size=4),
        st.sampled_from(["", "?", "?state=%00", "?since=%ff", "?limit=%", "?a=%zz&=&", "?cursor=%00"]),
        st.sampled_from(tokens) | header_bytes.map(lambda raw: b"Bearer " + raw) | header_bytes,
        st.sampled_from(
            [
                *("Range", "Last-Event-ID", "Idempotency-Key", "Content-Type", "X-Forwarded-For"),
                *("Accept", "Expect", "Origin", "Cookie", "If-Modified-Since"),
            ]
        ),
        header_bytes,
        st.binary(max_size=50),
    )
    def go(
        method: str,
        root: str,
        steps: list[str],
        query: str,
        token: bytes,
        name: str,
        value: bytes,
        body: bytes,
    ) -> None:
        target = "/".join([root, *steps]) + query
        if "events" in target:
            return
        headers = [b"Authorization: " + token, name.encode() + b": " + value]
        assert doors.send(method, target or "/", headers, body) < 500

    await beside(doors, go)


async def test_nothing_below_has_to_ask_whether_an_address_is_made_of_text(doors: Ward) -> None:
    """Also where any word would be looked up, or passed on to Sectra."""
    access = urlsplit(doors.there["url"]).path
    vendors = b"Authorization: Bearer " + doors.there["token"].encode()

    def go() -> None:
        for word in ("%00", "%0a", "%e2%80%a8", "a%7f"):
            for method, target in (
                ("GET", f"{access}/slides/{word}/info"),
                ("POST", f"{access}/applications/{word}/results"),
                ("GET", f"/api/v1/jobs/{word}"),
            ):
                assert doors.send(method, target, [vendors], b"") == 404, target

    await beside(doors, go)


async def test_no_message_of_sectra_breaks_anything(doors: Ward) -> None:
    fields = [*doors.invocation, "input.content", "callbackInfo.url", "callbackInfo.token", "context.x"]

    @often()
    @given(
        st.sampled_from(["create", "modify", "delete", "cancel"]),
        st.dictionaries(st.sampled_from(fields), odd_value, min_size=1, max_size=3),
        st.sampled_from(["", "/imagenotification"]),
    )
    def go(action: str, changes: dict[str, Any], rest: str) -> None:
        body = json.loads(json.dumps({**doors.invocation, "action": action}))
        for place, value in changes.items():
            outer, _, inner = place.partition(".")
            body[outer] = (
                {**body[outer], inner: value} if inner and isinstance(body.get(outer), dict) else value
            )
        headers = [b"Content-Type: application/json"]
        assert doors.send("POST", f"/ia/{KIDNEY}{rest}", headers, json.dumps(body).encode()) < 500

    await beside(doors, go)


async def test_no_word_of_a_vendor_or_a_program_breaks_anything(doors: Ward) -> None:
    base = urlsplit(doors.there["url"]).path
    vendors = b"Authorization: Bearer " + doors.there["token"].encode()
    programs = b"Authorization: Bearer " + TOKENS["operator"].encode()
    result = {
        "slideId": "slide-wsi",
        "versionId": "1",
        "displayResult": "x",
        "displayProperties": {},
        "data": {},
    }
    asked = {"application": TRAUMA, "accession_number": "A1", "do": "retry", "filter": {}, "expect": 0}

    @often()
    @given(
        st.dictionaries(st.sampled_from(sorted({*result, *asked})), odd_value, max_size=3),
        st.sampled_from([f"{base}/applications/x/results", f"{base}/slides/slide-wsi/qualityControl"]),
        st.sampled_from(["/api/v1/jobs", "/api/v1/jobs/actions"]),
        st.sampled_from([b"", b"[", b'"\\u0000"', b"\xff", b"\x1f\x8b\x08\x00broken"]) | st.none(),
    )
    def go(changes: dict[str, Any], theirs: str, ours: str, raw: bytes | None) -> None:
        kind = b"Content-Type: application/json"
        for target, token, base in ((theirs, vendors, result), (ours, programs, asked)):
            body = json.dumps({**base, **changes}).encode() if raw is None else raw
            for method in ("POST", "PUT"):
                assert doors.send(method, target, [kind, token], body) < 500

    await beside(doors, go)
