"""gateway check --alive: what the gateway that runs here says of itself, for a container's health check."""

from __future__ import annotations

import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final

from gateway.commands.opening import FAILED, complain, read_settings
from gateway.settings.sections import Settings

_LIMIT: Final = 5.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (called, not bound)


def alive(config: Path | None) -> int:
    settings = read_settings(config, aloud=False)
    try:
        with closing(_connection(settings)) as connection:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            words = answer.read().decode(errors="replace")
    except (OSError, HTTPException) as trouble:
        complain(f"no gateway answers at {_place(settings)}: {trouble}")
        return FAILED
    print(words)
    return 0 if answer.status == 200 else FAILED


def _place(settings: Settings) -> str:
    door = settings.monitor or settings.listen
    return f"{_EVERYWHERE.get(door.host, door.host)} port {door.port}"


def _connection(settings: Settings) -> HTTPConnection:
    door = settings.monitor or settings.listen
    host = _EVERYWHERE.get(door.host, door.host)
    if settings.monitor is None and settings.listen.tls is not None:
        # It is ourselves, by an address that no certificate names.
        return HTTPSConnection(host, door.port, timeout=_LIMIT, context=ssl._create_unverified_context())  # noqa: S323
    return HTTPConnection(host, door.port, timeout=_LIMIT)
