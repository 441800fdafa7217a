"""Workers are woken once what they are woken for is committed: before, they find nothing and sleep on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gateway.jobs import store

SOURCES = sorted(Path(store.__file__).parent.glob("*.py"))


def _calls(node: ast.AST, name: str) -> bool:
    return any(
        isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == name
        for each in ast.walk(node)
    )


def _woken_too_early(source: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncWith)
        and any(_calls(item.context_expr, "_transaction") for item in node.items)
        and any(_calls(statement, "_wake_soon") for statement in node.body)
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nobody_is_woken_amid_a_transaction(source: Path) -> None:
    assert _woken_too_early(source.read_text()) == []


def test_who_is_would_be_found() -> None:
    early = "async def f(self):\n  async with self._transaction() as c:\n    if c:\n      self._wake_soon()\n"
    assert _woken_too_early(early) == [2]
