"""What systemd hears of us, and what it gives us, where it is it who started us: readiness and life by its
notification socket (sd_notify), and sockets that it listens at on our behalf, by their names."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

import structlog

from gateway.loops import Loop

log = structlog.get_logger(__name__)

_FIRST_GIVEN = 3  # the file descriptors after our standard ones
_TOO_OFTEN = 3  # times in the span that it waits for a sign of life, so that one that comes late is no death


class Systemd:
    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = environment or {}
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._waits = _number(environment.get("WATCHDOG_USEC")) / 1e6
        if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            self._waits = 0.0
        self._given = _given(environment)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def busy(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=handing over what is under way")

    async def show_life(self) -> None:
        """For as long as the event loop turns."""
        if not self._address or not self._waits:
            return

        async def tell() -> None:
            self._tell("WATCHDOG=1")

        await Loop("watchdog").run(tell, pause=self._waits / _TOO_OFTEN)

    def sockets(self, name: str) -> list[socket.socket]:
        """That it listens at for us under that name: `FileDescriptorName=` of a socket unit."""
        return [socket.socket(fileno=number) for number in self._given.pop(name, [])]

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        abstract = self._address.startswith("@")
        address = "\0" + self._address[1:] if abstract else self._address
        # It never stops us that nobody listens.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), address)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _given(environment: Mapping[str, str]) -> dict[str, list[int]]:
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    numbers = range(_FIRST_GIVEN, _FIRST_GIVEN + _number(environment.get("LISTEN_FDS")))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for number, name in zip(numbers, names, strict=False):
        os.set_inheritable(number, False)
        found.setdefault(name, []).append(number)
    return found
