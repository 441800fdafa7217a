"""What the documents show works as it is written: each configuration can be used, each command is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from gateway.__main__ import app
from gateway.sessions import Sessions
from gateway.settings.load import load
from gateway.work.vendors import Vendors

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "deploy").rglob("*.md")])
FENCED = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
TYPED = re.compile(r"(?:^ {4}|`)(?:sudo )?(gateway (?!-)[^`#\n|]+)", re.MULTILINE)
NAMED = re.compile(r"\$\{(?:(file|credential):)?([^}]+)\}")


def shown() -> list[tuple[str, str]]:
    found = [(path.name, text) for path in DOCUMENTS for text in FENCED.findall(path.read_text())]
    ten_lines = (ROOT / "README.md").read_text().partition("## A department in ten lines")[2]
    [block, *_] = (each for each in INDENTED.findall(ten_lines) if each.strip())
    return [("a department in ten lines", block), *found]


@pytest.mark.parametrize(("where", "text"), shown())
async def test_a_configuration_can_be_used_as_it_stands(where: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    known = {name: "secret" for kind, name in NAMED.findall(text) if not kind}
    path = tmp_path / "gateway.yaml"
    path.write_text(NAMED.sub(lambda found: found[0] if not found[1] else "secret", text))
    settings = load(path, known)
    async with Sessions(settings) as sessions:
        Vendors(settings, sessions).check(settings)


def typed() -> list[str]:
    return sorted({line.strip() for path in DOCUMENTS for line in TYPED.findall(path.read_text())})


def test_the_readme_names_every_command() -> None:
    command: Any = typer.main.get_command(app)
    named = set(re.findall(r"\bgateway ([a-z][a-z-]+)", (ROOT / "README.md").read_text()))
    assert set(command.commands) - named == set()


@pytest.mark.parametrize("line", typed())
def test_a_command_is_there_with_these_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.replace("…", ""))[1:]
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"gateway has no {name}"
        command = command.commands[name]
    known = {option for each in command.params for option in each.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{line}: no {word}"
