"""The software bill of materials: valid CycloneDX, whole, and with a licence and a checksum for each part."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from gateway.evidence import sbom

ROOT = Path(__file__).parents[2]
TEXT = sbom.write()
PARTS: dict[str, Any] = {part["name"].lower(): part for part in json.loads(TEXT)["components"]}


def test_it_is_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(TEXT) is None


def test_all_that_is_locked_for_a_hospital_is_in_it() -> None:
    """And none of what only we need. As uv resolves it, which is none of our code."""
    locked = {each["name"]: each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    wanted: set[str] = set()
    extras = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    waiting: list[tuple[str, tuple[str, ...]]] = [("imaging-gateway", extras)]
    while waiting:
        name, extras = waiting.pop()
        wanted.add(name)
        package = locked[name]
        below = package.get("dependencies", []) + [
            each for extra in extras for each in package.get("optional-dependencies", {}).get(extra, [])
        ]
        for each in below:
            if "win32" in each.get("marker", ""):
                continue
            if each["name"] not in wanted or each.get("extra"):
                waiting.append((each["name"], tuple(each.get("extra", ()))))
    from_pypi = {name for name, part in PARTS.items() if part["purl"].startswith("pkg:pypi/")}
    assert {name.replace("_", "-").replace(".", "-") for name in from_pypi} == wanted - {"imaging-gateway"}


def test_each_part_tells_its_licence_and_checksum() -> None:
    assert [name for name, part in PARTS.items() if not part.get("licenses")] == []
    assert [name for name, part in PARTS.items() if not part.get("hashes")] == []
    assert PARTS["psycopg"]["licenses"] == [{"license": {"id": "LGPL-3.0-only"}}]
    assert "openseadragon" in PARTS
