"""What the gateway is made of, with licences: a software bill of materials, CycloneDX 1.6.

Of the packages that the gateway needs, those that are installed here. Where uv.lock lies with the programs,
each has the checksum of the file that it was installed from.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from email.message import Message
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from gateway import __version__

_OURS = "imaging-gateway"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
# As packages of old say it, in the words of SPDX.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "ISC License": "ISC",
    "Apache 2.0": "Apache-2.0",
}
_VENDORED = {"Zero-Clause BSD": "0BSD", "Neither the name": "BSD-3-Clause"}
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+-[0-9][A-Za-z0-9.+-]*|MIT|ISC|0BSD|Unlicense")
_HASH = "SHA-256"


def write() -> str:
    closure = dict(_needed(_OURS, frozenset(_extras())))
    components = [_component(found, _checksums()) for name, found in sorted(closure.items()) if name != _OURS]
    components += _vendored()
    own = closure[_OURS]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_serial(components)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": _OURS,
                "name": _OURS,
                "version": __version__,
                "licenses": _licences(own),
            },
            "properties": [{"name": "python", "value": platform.python_version()}],
        },
        "components": components,
        "dependencies": [
            {"ref": _ref(found), "dependsOn": sorted(_ref(closure[name]) for name in _direct(found, closure))}
            for _, found in sorted(closure.items())
        ],
    }
    return json.dumps(bom, indent=2) + "\n"


def _extras() -> list[str]:
    return distribution(_OURS).metadata.get_all("Provides-Extra") or []


def _needed(root: str, extras: frozenset[str]) -> Iterator[tuple[str, Distribution]]:
    """All that is installed of what it needs, and so on; what isn't is for another machine."""
    waiting, seen = [(root, extras)], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield name, found
        waiting += _requirements(found, wanted)


def _requirements(found: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for each in found.requires or []:
        said = _REQUIREMENT.match(each)
        if said is None or "win32" in (said[3] or ""):
            continue
        only_for = _EXTRA.findall(said[3] or "")
        if not only_for or extras.intersection(only_for):
            yield _plain(said[1]), frozenset(filter(None, map(str.strip, (said[2] or "").split(","))))


def _direct(found: Distribution, closure: dict[str, Distribution]) -> set[str]:
    told = {_plain(said[1]) for each in found.requires or [] if (said := _REQUIREMENT.match(each))}
    return (told & closure.keys()) - {_plain(found.metadata["Name"])}


def _component(found: Distribution, checksums: dict[str, str]) -> dict[str, Any]:
    name = _plain(found.metadata["Name"])
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _ref(found),
        "name": found.metadata["Name"],
        "version": found.version,
        "purl": f"pkg:pypi/{name}@{quote(found.version)}",
    }
    if licences := _licences(found):
        component["licenses"] = licences
    if checksum := next((checksums[file] for file in _files(found) if file in checksums), None):
        component["hashes"] = [{"alg": _HASH, "content": checksum}]
    return component


def _licences(found: Distribution) -> list[dict[str, Any]]:
    told = cast(Message, found.metadata)
    if expression := told.get("License-Expression"):
        return [_expression(expression)]
    written = str(told.get("License") or "").strip()
    written = _WORDS.get(written, written)
    parts = re.split(r" (?:AND|OR) ", written)
    if written and all(_EXPRESSION.fullmatch(part) for part in parts):
        return [_expression(written)]
    classified = [
        each.rpartition(":: ")[2] for each in told.get_all("Classifier") or [] if "License ::" in each
    ]
    return [{"license": _known(each)} for each in classified]


def _expression(text: str) -> dict[str, Any]:
    return {"license": {"id": text}} if " " not in text else {"expression": text}


def _known(classified: str) -> dict[str, str]:
    return {"id": _CLASSIFIERS[classified]} if classified in _CLASSIFIERS else {"name": classified}


def _files(found: Distribution) -> Iterator[str]:
    """The wheels that it may have come as."""
    name = re.sub(r"[-.]+", "_", found.metadata["Name"]).lower()
    for line in (found.read_text("WHEEL") or "").splitlines():
        if line.startswith("Tag: "):
            yield f"{name}-{found.version}-{line[5:].strip()}"


@cache
def _checksums() -> dict[str, str]:
    """By the wheel's name, for each of its tags."""
    places = [Path(__file__).parents[2] / "uv.lock", Path(sys.prefix) / "share" / "uv.lock"]
    lock = next((place for place in places if place.is_file()), None)
    told: dict[str, str] = {}
    for package in [] if lock is None else tomllib.loads(lock.read_text(encoding="utf-8"))["package"]:
        for wheel in package.get("wheels", ()):
            file = wheel["url"].rpartition("/")[2].removesuffix(".whl")
            name, version, *_, python, abi, platforms = file.split("-")
            for tag in (
                f"{one}-{other}-{third}"
                for one in python.split(".")
                for other in abi.split(".")
                for third in platforms.split(".")
            ):
                told[f"{name.lower()}-{version}-{tag}"] = wheel["hash"].removeprefix("sha256:")
    return told


def _vendored() -> list[dict[str, Any]]:
    """What browsers are given that others wrote; their licences stand beside it."""
    folder = Path(__file__).parents[1] / "console" / "static"
    _, *told = re.split(
        r"^== (\S+) (\S+) ==$", (folder / "licences.txt").read_text("utf-8"), flags=re.MULTILINE
    )
    components = []
    for name, version, words in zip(told[::3], told[1::3], told[2::3], strict=True):
        file = folder / f"{name.lower().partition('.')[0]}.js"
        reference = f"pkg:npm/{name.lower()}@{version}"
        licence = next(known for phrase, known in _VENDORED.items() if phrase in words)
        components.append(
            {
                "type": "library",
                "bom-ref": reference,
                "name": name,
                "version": version,
                "purl": reference,
                "licenses": [{"license": {"id": licence}}],
                "hashes": [{"alg": _HASH, "content": hashlib.sha256(file.read_bytes()).hexdigest()}],
            }
        )
    return components


def _serial(components: list[dict[str, Any]]) -> UUID:
    """The same for the same."""
    return uuid5(NAMESPACE_URL, f"{__version__} {json.dumps(components)}")


def _ref(found: Distribution) -> str:
    name = _plain(found.metadata["Name"])
    return _OURS if name == _OURS else f"pkg:pypi/{name}@{quote(found.version)}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
