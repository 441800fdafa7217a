"""The data-flow and retention table: all tables are in it, it is of this configuration, and has no secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.evidence import data, folder
from gateway.jobs import tables
from gateway.settings import reference
from gateway.settings.load import load
from gateway.settings.tree import Misconfigured
from gateway.work import housekeeping

KEY = "A" * 43 + "="
CONFIGURATION = {
    "secret_keys": [KEY],
    "database_url": "postgresql://gateway:secret-of-the-database@db.hospital/gateway",
    "api_tokens": [{"name": "ops", "role": "operator", "sha256": "0" * 64}],
    "sectra": {"servers": {"main": {"callback_urls": ["https://pacs.hospital/S/"]}}},
    "archives": {
        "vna": {
            "kind": "dicomweb",
            "url": "https://vna.hospital/d",
            "username": "g",
            "password": "secret-vna",
        },
        "pacs": {"kind": "dimse", "host": "pacs.plain", "port": 104, "ae_title": "PACS"},
    },
    "destinations": {"ris": {"kind": "hl7", "host": "ris.plain", "port": 2575}},
    "adapters": {"milvue": {"kind": "milvue", "url": "https://milvue.example", "token": "secret-of-milvue"}},
    "alerts": {"email": {"host": "mail.hospital", "from": "g@hospital", "to": ["it@hospital"]}},
    "audit_log": {"syslog": "tls://audit.hospital:6514"},
    "departments": {
        "emergency": {
            "contact": "radiology-it@hospital",
            "applications": {
                "trauma": {
                    "display_name": "T",
                    "adapter": "milvue",
                    "archives": ["vna", "pacs"],
                    "deliver": ["ris"],
                    "keep_days": 41,
                    "when": [
                        {"finding": "fracture", "score": ">0.8", "deliver": ["ris"], "notify": "emergency"}
                    ],
                }
            },
        }
    },
}


def test_every_table_is_in_it_and_what_is_encrypted_is_what_the_tables_say() -> None:
    assert set(data.TABLES) == set(tables.metadata.tables)
    source = Path(tables.__file__).read_text()
    assert source.count(", LargeBinary") == sum(len(data.encrypted_columns(name)) for name in data.TABLES)
    assert data.encrypted_columns("jobs") == ["patient_id", "callback_token", "result"]


def test_it_tells_of_this_configuration(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION))
    told = data.write(load(path, {}))
    for row in (
        "| emergency | trauma | 41 days |",
        "| emergency / trauma | milvue | milvue.example | TLS | the study's images | the patient's own |",
        "| ris | ris.plain | **not encrypted** |",
        "| pacs | pacs.plain | **not encrypted** |",
        "| vna | vna.hospital | TLS |",
        "| emergency / trauma | fracture, score > 0.8 | ris | results, as above |",
        "| emergency / trauma | fracture, score > 0.8 | emergency, by e-mail to radiology-it@hospital |",
        "| audit collector | audit.hospital | TLS |",
        "| token `ops` | operator |",
        "PostgreSQL on db.hospital",
    ):
        assert row in told
    assert "secret-" not in told and KEY not in told
    assert "/incoming`" in told and "bucket `" not in told


def test_a_bucket_for_what_is_sent_to_us_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    spool = {"kind": "s3", "bucket": "sent", "access_key": "secret-one", "secret_key": "secret-two"}
    for url, transport in (("https://s3.hospital", "TLS"), ("http://s3.hospital", "**not encrypted**")):
        path.write_text(yaml.safe_dump(CONFIGURATION | {"spool": spool | {"url": url}}))
        settings = load(path, {})
        told = data.write(settings)
        assert f"bucket `sent` at s3.hospital, transport: {transport}" in told
        assert "secret-" not in told and "secret-" not in settings.text


def test_the_folder_is_whole_and_has_no_secret(tmp_path: Path) -> None:
    path, out = tmp_path / "gateway.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(CONFIGURATION))
    result = CliRunner().invoke(app, ["evidence", "--out", str(out), "--config", str(path)])
    assert result.exit_code == 0, result.output
    written = {each.name: each.read_text() for each in out.iterdir()}
    assert written.keys() == {*folder.KEPT, *folder.OF_THE_PROGRAMS, *folder.OF_A_CONFIGURATION}
    assert all(written.values()) and not any("secret-" in text or KEY in text for text in written.values())
    for text in written.values():  # each document that another one names is there
        assert set(re.findall(r"`([a-z]+\.md|sbom\.cdx\.json)`", text)) <= written.keys()


def test_histories_are_deleted_by_nobody_and_no_setting_shortens_them(tmp_path: Path) -> None:
    """The AI Act asks for six months: 183 days."""
    house = Path(housekeeping.__file__).parents[1]
    code = "".join(path.read_text() for path in house.rglob("*.py"))
    assert "delete(table)" in code and not re.search(r"delete\((job_events|audit|seals)\)", code)
    assert not re.search(r"(DELETE FROM|TRUNCATE) (job_events|audit|seals)\b", code)
    assert housekeeping.ALERTS_KEPT >= 183
    known = reference.keys()
    assert known and not [key for key in known if "event" in key]
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION | {"keep_events": 30}))
    with pytest.raises(Misconfigured, match=r"keep_events"):
        load(path, {})
