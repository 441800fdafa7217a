"""gateway key, gateway token."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.line.options import Config, one_of

app = typer.Typer()


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command()
def key(
    seal: Annotated[bool, typer.Option("--seal", help="a new seal_key instead")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="what verifies the seals of this gateway; nothing is made")
    ] = False,
    fingerprints: Annotated[
        bool, typer.Option("--fingerprints", help="of secret_keys, as backups tell them; nothing is made")
    ] = False,
    config: Config = None,
) -> None:
    """A new key for secret_keys."""
    from gateway.commands import key as command

    if fingerprints:
        raise typer.Exit(command.show_fingerprints(config))
    raise typer.Exit(command.show_public(config) if public else command.make(seal))


@app.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose it is, as the audit will say")],
    role: Annotated[Role, typer.Argument(metavar="ROLE", **one_of(Role))],
) -> None:
    """A new token for api_tokens."""
    from gateway.commands import token as command

    raise typer.Exit(command.make(name, role.value))
