"""gateway demo, gateway simulate: the simulated hospital."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.line.options import one_of
from gateway.extras import Extra, is_installed, say_missing

app = typer.Typer()


class Simulated(StrEnum):
    SECTRA = "sectra"
    ARCHIVE = "archive"
    MILVUE = "milvue"
    IA_APP = "ia-app"


def _require(*extras: Extra) -> None:
    """What the simulated hospital can't do without; it draws its patients."""
    if missing := [extra for extra in extras if not is_installed(extra)]:
        typer.echo(f"{' and '.join(map(say_missing, missing))}: the simulated hospital needs it", err=True)
        raise typer.Exit(1)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="keep it running")] = False,
) -> None:
    """A whole hospital on one machine."""
    _require("reports", "embedded")
    from gateway.commands import demo as command

    raise typer.Exit(command.demo(serve))


@app.command(context_settings={"help_option_names": []})
def simulate(
    context: typer.Context,
    peer: Annotated[
        Simulated | None,
        typer.Argument(metavar="PEER", show_default=False, **one_of(Simulated)),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="0 takes a free one")] = 0,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="where it listens")] = "127.0.0.1",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="where others reach it, if not there")
    ] = None,
    asks: Annotated[
        bool, typer.Option("--help", help="this message; after milvue, all that it does and can be told")
    ] = False,
) -> None:
    """A simulated Sectra, archive, Milvue or IA-API app.

    It listens on loopback, unless told otherwise. Each can be looked at and disturbed from outside: GET
    /control/log, PUT /control/faults; and Sectra has /control/slides, /fire, /results, /firings and
    /settings, the archive /control/state and /manners, Milvue /control/state, /behaviour and
    /quota.
    """
    if asks:
        from gateway.commands import simulated

        typer.echo(simulated.describe("" if peer is None else peer.value) + context.get_help())
        raise typer.Exit
    if peer is None:
        raise typer.BadParameter(f"say which: {', '.join(Simulated)}", param_hint="PEER")
    _require("reports")
    from gateway.commands import simulate as command

    raise typer.Exit(command.simulate(peer.value, port, url, host))
