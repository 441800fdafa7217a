"""A failure's message stands within other sentences: it begins small (but for names) and has no full stop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

_ROOT = Path(gateway.__file__).parents[1]
_FAILURES = {
    *("Retryable", "Unreachable", "Unanswered", "VersionConflict"),
    *("Permanent", "Unsuitable", "NotThere", "NeedsHuman"),
}
_SMALL = {"The", "A", "An", "It", "Nothing", "This", "There", "No", "Something", "One", "Its", "Another"}
_FILES = [path for room in ("gateway", "adapters") for path in sorted((_ROOT / room).rglob("*.py"))]


def _messages(path: Path) -> Iterator[tuple[int, str]]:
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _FAILURES:
            for message in call.args[:1]:
                written = ast.unparse(message).lstrip("f").strip("'\"")
                yield message.lineno, written


@pytest.mark.parametrize("path", _FILES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_messages_are_of_one_style(path: Path) -> None:
    odd = [
        f"{path}:{line}: {written}"
        for line, written in _messages(path)
        if written.endswith(".") or written.split(" ")[0] in _SMALL
    ]
    assert not odd
