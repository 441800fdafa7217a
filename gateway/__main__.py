"""The command line. A command's arguments, options and help stand with its family in `gateway/commands/line`,
its work in `gateway/commands`; either is loaded when it is asked for."""

from __future__ import annotations

import signal
import sys

if sys.argv[1:2] == ["run"]:  # at once, before all else is loaded: it ends no gateway
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup
from typer.main import get_group

FAMILIES: Final = {  # as help lists them
    "run": "daemon",
    "check": "daemon",
    "status": "status",
    "pause": "pauses",
    "unpause": "pauses",
    "interesting": "studies",
    "migrate": "database",
    "explain": "studies",
    "replay": "trials",
    "compare": "trials",
    "trial": "trials",
    "reconcile": "studies",
    "demo": "hospital",
    "simulate": "hospital",
    "backup": "database",
    "restore": "database",
    "move-database": "database",
    "key": "keys",
    "evidence": "evidence",
    "token": "keys",
    "jobs": "jobs",
    "audit": "audit",
    "config": "configuration",
}


class _Commands(Mapping[str, Any]):
    """Each is there once it is looked at, with its family."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            family = typer.Typer(rich_markup_mode=None)
            family.add_typer(import_module(f"gateway.commands.line.{FAMILIES[name]}").app)
            self._loaded |= get_group(family).commands
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in FAMILIES

    def __iter__(self) -> Iterator[str]:
        return iter(FAMILIES)

    def __len__(self) -> int:
        return len(FAMILIES)


class _Line(TyperGroup):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = cast(MutableMapping[str, Any], _Commands())


app = typer.Typer(
    cls=_Line,
    help="The imaging AI gateway.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to lay help out in colours takes longer than all else that is asked
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from gateway import __version__

        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="say which release it is")
    ] = False,
) -> None:
    del version


def main() -> None:
    app()


if __name__ == "__main__":
    main()
