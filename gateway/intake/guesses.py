"""Wrong tokens: counted, told, and slowed down more and more, so that guessing leads nowhere unseen.

An address from which many came is heard again after a while; a token that was right from there before is let
in at once all the same, and other addresses notice nothing. A step of /ia's own path is only answered later:
Sectra has one address, and a registration that nobody has taken away mustn't keep the others out.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog
from aiohttp import web

from gateway.intake.access import RIGHT
from gateway.intake.burst import Burst
from gateway.intake.callers import Callers
from gateway.intake.places import household
from gateway.intake.problems import Problem, WrongToken
from gateway.jobs.store import DatabaseError
from gateway.watch.metrics import count_wrong_token

log = structlog.get_logger(__name__)

_FREE = 3  # tries that are answered at once
_FIRST, _MOST = 0.1, 2.0  # seconds that the next ones wait; they double
_HEARD_OUT = 20  # tries, after which the address waits
_FORGIVES = 0.5  # tries a second
_WORST = 35.0
_DELAYED = 10  # at once, of one address
_REMEMBERED = 10_000
_NAMED = {
    "api": "/api",
    "adapters": "/adapters, where vendors call",
    "dicomweb": "/dicomweb",
    "ia": "/ia, where Sectra calls",
    "console": "the console",
}
_ALARMING = 10  # tries at one door between two times that they are told

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
K = TypeVar("K")
V = TypeVar("V")


class Told(Protocol):
    """Who hears of them."""

    async def note_in_audit(self, who: str, what: str, detail: Mapping[str, Any]) -> None: ...

    async def raise_alert(self, cause: str, sentence: str, advice: str) -> bool: ...

    async def clear_alert(self, cause: str) -> bool: ...


@dataclass(slots=True)
class Suspect:
    """An address. `tries`: wrong ones, less what time has forgiven since `at`."""

    tries: float = 0.0
    at: float = 0.0
    delayed: int = 0

    def forgive(self, now: float) -> None:
        self.tries = max(0.0, self.tries - (now - self.at) * _FORGIVES)
        self.at = now

    def add(self) -> None:
        self.tries = min(self.tries + 1, _WORST)

    def wait(self) -> float:
        """Seconds until it is heard again."""
        return max(0.0, (self.tries - _HEARD_OUT) / _FORGIVES)


class Guesses:
    def __init__(self, callers: Callers, told: Told, *, tell_after: float = 10.0) -> None:
        self._callers = callers
        self._told = told
        self._tell_after = tell_after
        self._suspects: OrderedDict[str, Suspect] = OrderedDict()
        self._right: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._untold: dict[str, Burst] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def build(self) -> Any:
        """The middleware."""

        @web.middleware
        async def listen(request: web.Request, handler: Handler) -> web.StreamResponse:
            address = household(self.address(request))
            shown = _shown(request)
            if shown is not None and (address, shown) not in self._right:
                self._hear_out(address)
            try:
                return await handler(request)
            except WrongToken:
                await self._note(address, _door(request.path))
                raise
            finally:
                if shown is not None and request.get(RIGHT):
                    _keep(self._right, (address, shown), None)

        return listen

    def address(self, request: web.Request) -> str:
        return str(self._callers.address(request) or "unknown")

    def hear_out(self, request: web.Request) -> None:
        """For those who show what they know otherwise than in a header."""
        self._hear_out(household(self.address(request)))

    async def note(self, request: web.Request) -> None:
        """That it was wrong."""
        await self._note(household(self.address(request)), _door(request.path))

    async def close(self, _: web.Application) -> None:
        for task in self._telling:
            task.cancel()
        for door, burst in self._untold.items():
            await self._tell(door, burst)

    def _hear_out(self, address: str) -> None:
        suspect = self._suspects.get(address)
        if suspect is None:
            return
        suspect.forgive(asyncio.get_running_loop().time())
        if (wait := suspect.wait()) > 0:
            suspect.add()
            again = {"Retry-After": str(math.ceil(wait))}
            raise Problem(429, "too many wrong tokens came from this address; wait a little", again)

    async def _note(self, address: str, door: str) -> None:
        suspect = self._suspects.get(address) or Suspect()
        _keep(self._suspects, address, suspect)
        suspect.forgive(asyncio.get_running_loop().time())
        suspect.add()
        count_wrong_token(door)
        self._count(door, address)
        if suspect.tries > _FREE and suspect.delayed < _DELAYED:
            suspect.delayed += 1
            try:
                await asyncio.sleep(min(_FIRST * 2.0 ** (suspect.tries - _FREE - 1), _MOST))
            finally:
                suspect.delayed -= 1

    def _count(self, door: str, address: str) -> None:
        """With the first of a burst it is told, and again with their number while it goes on."""
        if door not in self._untold:
            self._untold[door] = Burst()
            log.warning("a wrong token", door=door, address=address)
            task = asyncio.create_task(self._go_on_telling(door))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        self._untold[door].add(address)

    async def _go_on_telling(self, door: str) -> None:
        await asyncio.sleep(self._tell_after)
        alarmed = False
        while self._untold[door].tries:
            burst, self._untold[door] = self._untold[door], Burst()
            alarmed |= burst.tries >= _ALARMING
            await self._tell(door, burst)
            await asyncio.sleep(self._tell_after * 6)
        del self._untold[door]
        if alarmed:
            with suppress(DatabaseError):
                await self._told.clear_alert(_cause(door))

    async def _tell(self, door: str, burst: Burst) -> None:
        if not burst.tries:
            return
        told = {"door": door, **burst.told()}
        log.warning("wrong tokens", **told)
        try:
            await self._told.note_in_audit("nobody", "wrong tokens", told)
            if burst.tries >= _ALARMING:
                await self._told.raise_alert(
                    _cause(door),
                    f"wrong tokens come in at {_NAMED[door]}: {burst.tries} by now",
                    "The audit tells from which addresses: find out who that is, and shut guessers out.",
                )
        except Exception as trouble:  # noqa: BLE001 - those that come after are to be told all the same
            log.error("wrong tokens can't be audited now", error=type(trouble).__name__)


def _cause(door: str) -> str:
    return f"doors.{door}"


def _shown(request: web.Request) -> bytes | None:
    said = request.headers.get("Authorization")
    return None if said is None else hashlib.sha256(said.encode("utf-8", "surrogateescape")).digest()


def _door(path: str) -> str:
    first = path.partition("/")[2].partition("/")[0]
    return first if first in _NAMED else "console"


def _keep(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
