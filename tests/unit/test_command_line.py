"""Help lists each command that a family declares, and finds it there."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import typer
from typer.main import get_group

from gateway.__main__ import FAMILIES
from gateway.commands import line


def _declared(family: str) -> list[str]:
    app = getattr(import_module(f"{line.__name__}.{family}"), "app", None)
    if app is None:
        return []
    gathered = typer.Typer()
    gathered.add_typer(app)
    return list(get_group(gathered).commands)


def test_each_declared_command_is_listed_with_its_family() -> None:
    families = [module.name for module in iter_modules(line.__path__)]
    assert {name: family for family in families for name in _declared(family)} == FAMILIES
