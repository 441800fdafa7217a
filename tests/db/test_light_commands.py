"""What a command doesn't need isn't loaded: looking at jobs is asked for by scripts, over and over. A gateway
that has met no study yet has none of what reads one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import sqlalchemy

RUN = """
import sys
from gateway.__main__ import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sys.modules)
"""
CONFIGURATION = """
public_url: "http://127.0.0.1:8080"
archives: {vna: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}}
destinations: {vna: {kind: stow, archive: vna}}
adapters:
  milvue: {kind: milvue, url: "http://127.0.0.1:9", token: secret, commands: [smarturgences]}
  kidney: {kind: sectra-ia, url: "http://127.0.0.1:9/ia/kidney"}
  other: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}
sectra: {open: true, servers: {main: {callback_urls: ["http://127.0.0.1:9/"]}}}
departments:
  emergency:
    contact: it@hospital
    applications:
      trauma:
        {display_name: Trauma, manufacturer: Milvue, adapter: milvue, archives: [vna], deliver: [sectra, vna]}
"""
FOR_STUDIES = {"PIL", "highdicom", "numpy", "pydicom", "pynetdicom", "requests"}
HEAVY = {"aiohttp", "alembic", "highdicom", "jinja2", "numpy", "pydicom", "pynetdicom", "prometheus_client"}
OURS = {
    "gateway.building",
    "gateway.embedded.server",
    "gateway.embedded.programs",
    "gateway.work",
    "gateway.delivery",
}
MORE = {"sqlalchemy", "psycopg", "cryptography", "gateway.settings", "gateway.jobs.store"}


def _loaded(*arguments: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


def _declared(loaded: set[str]) -> set[str]:
    place = "gateway.commands.line."
    return {name.removeprefix(place) for name in loaded if name.startswith(place)}


def test_help_loads_next_to_nothing() -> None:
    assert not _loaded("--help") & (HEAVY | OURS | MORE)
    assert not _loaded("jobs", "list", "--help") & (HEAVY | OURS | MORE)


def test_libraries_are_compiled_before_they_are_first_used() -> None:
    """Some environments let no program write what it compiled; each start would then take seconds."""
    compiled = Path(importlib.util.cache_from_source(sqlalchemy.__file__))
    assert (Path(sys.prefix) / "synced").exists() and compiled.parent.parent.is_relative_to(sys.prefix)
    assert compiled.exists()


def test_a_command_is_declared_without_those_of_other_families() -> None:
    assert not _declared(_loaded("--version"))
    assert _declared(_loaded("jobs", "list", "--help")) == {"jobs", "filters", "options"}


def test_listing_jobs_loads_neither_the_doors_nor_the_migrations_nor_dicom(
    database_url: str, secret_key: str, tmp_path: Path
) -> None:
    settings = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_SECRET_KEYS": f'["{secret_key}"]',
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    assert not _loaded("jobs", "list", **settings) & (HEAVY | OURS)
    assert not _loaded("jobs", "list", "--json", **settings) & (HEAVY | OURS)


def test_a_gateway_that_is_built_has_loaded_nothing_that_only_a_study_needs(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(f"data_dir: {tmp_path}\n{CONFIGURATION}")
    loaded = _loaded("check", "--offline", "--config", str(config))
    assert "gateway.building.house" in loaded
    assert not loaded & (FOR_STUDIES | {"alembic", "jinja2", "authlib", "_gdcm"})
