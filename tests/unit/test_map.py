"""The map of the house names every room, and no module that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

from gateway import run

HOUSE = Path(run.__file__).parent


def test_the_map_names_every_room() -> None:
    assert run.__doc__ is not None
    rooms = {path.parent.name for path in HOUSE.glob("*/__init__.py")} - {"commands", "simulate"}
    assert rooms <= set(re.findall(r"\w+", run.__doc__.partition("A job comes in")[0]))


def test_what_the_map_names_is_there() -> None:
    assert run.__doc__ is not None
    for room, module in re.findall(
        r"\b([a-z]+)\.([a-z_0-9]+)\b(?!\.)", run.__doc__.partition("Where to change")[2]
    ):
        assert (HOUSE / room / f"{module}.py").exists(), f"{room}.{module}"


def test_the_rooms_of_the_readme_are_there() -> None:
    table = (HOUSE.parent / "README.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    for path in re.findall(r"`((?:gateway|adapters|tests|migrations|deploy)/[a-z_./]*)`", table):
        assert (HOUSE.parent / path).exists(), path
    rooms = {f"gateway/{path.parent.name}/" for path in HOUSE.glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"`([^`]+)`", table))
