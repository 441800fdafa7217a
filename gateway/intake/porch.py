"""Where those wait who come while their address has changed places often enough for the moment.

In a storm of connections most say nothing, or never finish what they say. So nothing is done for whoever
waits here but to look, again and again, whether he has asked something by now: then he is let in, the
youngest first, since those of a storm only grow older. The others go after a moment, and of the largest crowd
first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from gateway.intake.places import household
from gateway.loops import Loop

_EVERY = 0.02  # seconds
_WAITS = 2.0
_LET_IN = 4  # of one address, at each look
_HEAD = 16 * 1024
_END_OF_HEAD = b"\r\n\r\n"

Admit = Callable[[socket.socket, str], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    connected: socket.socket
    address: str
    since: float


class Porch:
    """`admit`: whether there is a place now for whoever has asked. `enciphered`: a head can't be seen, so the
    beginning of a TLS handshake has to do."""

    def __init__(self, room: int, admit: Admit, *, enciphered: bool = False) -> None:
        self._room = max(1, room)
        self._admit = admit
        self._enciphered = enciphered
        self._loop = asyncio.get_running_loop()
        self._crowds: dict[str, list[Waiting]] = {}  # the youngest last
        self._count = 0
        self._somebody = asyncio.Event()

    def wait(self, connected: socket.socket, address: str) -> None:
        if self._count >= self._room:
            self._see_off(max(self._crowds.values(), key=len)[0])
        connected.setblocking(False)
        waiting = Waiting(connected, address, self._loop.time())
        self._crowds.setdefault(household(address), []).append(waiting)
        self._count += 1
        self._somebody.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        await Loop("porch").run(self._look, pause=_EVERY)

    def close(self) -> None:
        for crowd in list(self._crowds.values()):
            for waiting in list(crowd):
                self._see_off(waiting)

    async def _look(self) -> None:
        await self._somebody.wait()
        now = self._loop.time()
        for crowd in list(self._crowds.values()):
            let_in = 0
            for waiting in crowd[::-1]:
                if let_in < _LET_IN and self._has_asked(waiting.connected):
                    if self._admit(waiting.connected, waiting.address):
                        let_in += 1
                        self._forget(waiting)
                elif now - waiting.since > _WAITS:
                    self._see_off(waiting)
        if not self._crowds:
            self._somebody.clear()

    def _has_asked(self, connected: socket.socket) -> bool:
        try:
            seen = connected.recv(_HEAD, socket.MSG_PEEK)
        except OSError:
            return False
        return bool(seen) and (self._enciphered or _END_OF_HEAD in seen or len(seen) == _HEAD)

    def _see_off(self, waiting: Waiting) -> None:
        self._forget(waiting)
        waiting.connected.close()

    def _forget(self, waiting: Waiting) -> None:
        name = household(waiting.address)
        self._crowds[name].remove(waiting)
        self._count -= 1
        if not self._crowds[name]:
            del self._crowds[name]
