"""Where the gateway and its vendors' door are opened, and to whom."""

from __future__ import annotations

import re

import pytest

from gateway.settings.checks import find_doubts
from gateway.settings.load import load
from tests.unit.configured import ENVIRONMENT, WHOLE, problems

OPEN = WHOLE.replace("  allowed_networks: [10.1.0.0/16]\n", "")
HERE = OPEN.replace("public_url: https://gateway.hospital\n", "")


@pytest.mark.parametrize(
    "text",
    [
        OPEN,
        HERE.replace("host: 127.0.0.1", "host: 0.0.0.0"),
        HERE.replace("host: 127.0.0.1", "host: gateway"),
        OPEN.replace("sectra:\n", "sectra:\n  allowed_networks: [10.0.0.0/8, 0.0.0.0/0]\n"),
        OPEN.replace("port: 8080}", "port: 8080, tls: {certificate: c, key: k}}"),
    ],
)
def test_nobody_opens_the_door_for_sectra_to_all_by_forgetting_it(write, text):
    [told] = problems(write(text))
    assert re.match(r"gateway.yaml line \d+: sectra: /ia is open to whoever reaches it; set ", told)
    for way in ("allowed_networks", "secret_path", "listen.tls.client_ca", "open: true"):
        assert way in told


@pytest.mark.parametrize(
    ("text", "doubts"),
    [
        (WHOLE, 0),
        (HERE, 1),
        (OPEN.replace("https://gateway.hospital", "http://localhost:8080"), 1),
        (OPEN.replace("sectra:\n", "sectra:\n  open: true\n"), 0),
        (OPEN.replace("sectra:\n", "sectra:\n  secret_path: 0123456789abcdef\n"), 0),
        (OPEN.replace("port: 8080}", "port: 8080, tls: {certificate: c, key: k, client_ca: a}}"), 0),
        (re.sub(r"^sectra:\n(  .*\n)*", "", WHOLE, flags=re.MULTILINE), 0),
    ],
)
def test_who_may_call_is_said_on_purpose_or_is_this_machine(write, text, doubts):
    assert len(find_doubts(load(write(text), ENVIRONMENT))) == doubts


@pytest.mark.parametrize(
    ("spool", "retrieve", "doubted"),
    [("s3", "", True), ("s3", "retrieve: move", True), ("s3", "retrieve: get", False), ("folder", "", False)],
)
def test_what_an_archive_sends_may_come_to_another_machine_than_asked(tmp_path, spool, retrieve, doubted):
    bucket = ", url: http://127.0.0.1:9, bucket: spool, access_key: a, secret_key: b" if spool == "s3" else ""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"spool: {{kind: {spool}{bucket}}}\n"
        "dimse: {ae_title: GATEWAY}\n"
        f"archives: {{pacs: {{kind: dimse, host: pacs, port: 104, ae_title: PACS, {retrieve}}}}}\n"
    )
    told = [doubt for doubt in find_doubts(load(path, {})) if doubt.startswith("archives.pacs: ")]
    assert len(told) == doubted
    assert all("several share the AE title GATEWAY" in doubt for doubt in told)


@pytest.mark.parametrize(
    ("vendors", "sentence"),
    [
        ("{listen: {port: 1}}", "vendors.public_url is missing"),
        (
            "{public_url: http://v, listen: {port: 8080}}",
            "vendors.listen: that is where everybody else calls",
        ),
        ("{public_url: http://v, listen: {port: 8081}}", ""),
        ("{public_url: http://v}", ""),
    ],
)
def test_vendors_are_told_where_they_are_served(write, vendors, sentence):
    path = write(f"{WHOLE}vendors: {vendors}\n")
    if sentence:
        assert sentence in problems(path)[0]
    else:
        assert load(path, ENVIRONMENT).vendors.public_url == "http://v"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("monitor: {port: 8080}", "monitor.port: 8080 is where listen listens"),
        ("monitor: {port: 8080, host: 0.0.0.0}", "monitor.port: 8080 is where listen listens"),
        ("dimse: {port: 9090}\nmonitor: {}", "monitor.port: 9090 is where dimse listens"),
        ("monitor: {port: 8080, host: 127.0.0.2}", ""),
        ("monitor: {port: 8081}", ""),
    ],
)
def test_each_door_listens_at_an_address_of_its_own(write, more, sentence):
    path = write(f"{WHOLE}{more}\n")
    if sentence:
        line = len((WHOLE + more).splitlines())
        [told] = problems(path)
        assert told.startswith(f"gateway.yaml line {line}: {sentence}; choose another port"), told
    else:
        load(path, ENVIRONMENT)
