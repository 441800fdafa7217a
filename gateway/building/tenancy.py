"""The configuration in force, and the move into another."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Literal, Self

import structlog

from gateway.archives.lookup import THERE
from gateway.building.entrances import Entrances
from gateway.building.ground import Lasting
from gateway.building.house import House, furnish
from gateway.intake.revolving import DoorsOfOne
from gateway.loops import Loop, beside
from gateway.settings.certificates import telling_lines
from gateway.settings.sections import Settings
from gateway.settings.source import Source, find_fixed
from gateway.settings.tree import Misconfigured
from gateway.systemd import Systemd
from gateway.work.study_way import UNTIL

log = structlog.get_logger(__name__)

Part = Literal["intake", "workers"]

_LOOKS_AT_FILES = 2.0
_LEFT_ALONE = 60.0  # seconds; a peer that was just being asked has answered by then


class Tenancy:
    """The house as the configuration in force furnishes it. Another one is furnished beside it and moved into
    at once, or not at all; what had begun in the old one ends there."""

    def __init__(
        self, lasting: Lasting, only: Part | None, house: House, furniture: AsyncExitStack, systemd: Systemd
    ) -> None:
        self.house = house
        self.entrances = Entrances(house.doors)
        self._lasting = lasting
        self._only = only
        self._systemd = systemd
        self._engine, self._storage = house.engine, house.doors.storage
        self._furniture = furniture
        self._going_on = AsyncExitStack()
        self._leaving: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Event()
        self._due = ""  # why the configuration is to be read again
        self._look_again: list[str] = []  # how reasons for waiting begin that may hold no longer
        self._untold: list[tuple[str, str, str, str, Sequence[str]]] = []  # what note_revision takes

    @classmethod
    async def begin(cls, settings: Settings, lasting: Lasting, only: Part | None, systemd: Systemd) -> Self:
        furniture = AsyncExitStack()
        house = await furniture.enter_async_context(furnish(settings, lasting))
        return cls(lasting, only, house, furniture, systemd)

    @property
    def status(self) -> str:
        """In a line, for whoever asks systemd."""
        part = f"only {self._only}, " if self._only is not None else ""
        refused = "; a changed one is refused, see the log" if self._lasting.in_force.refused else ""
        return f"at work: {part}configuration {self.house.settings.revision[:12]}{refused}"

    @property
    def worker(self) -> int:
        return self._engine.worker

    async def open(self) -> None:
        if self._only != "workers" or self.entrances.monitor is not None:
            await self.entrances.turn_to(self.house.doors)
        await self._go_on()

    async def _go_on(self) -> None:
        """What goes on for as long as this configuration is in force."""
        house = self.house
        works: list[Coroutine[Any, Any, None]] = [house.figures.run(), house.admission.run()]
        works += [house.alerts.run(), house.outage.run()]
        if self._only != "intake":
            works += [house.housekeeping.run(), house.recovery.run()]
            works += [house.silence.run(), house.reconciliation.run(), house.certificates.run()]
            works += [house.canaries.run(), house.quality.run(), house.shadowing.run()]
            works += [each.run() for each in (house.trail, house.traces) if each is not None]
        if self._only != "workers":
            works.append(house.doors.ended.run())
        for work in works:
            await self._going_on.enter_async_context(beside(work))

    async def tell_start(self) -> None:
        if self.house.trail is not None:
            await self.house.trail.started()

    async def tell_end(self) -> None:
        if self.house.trail is not None:
            await self.house.trail.stopped()

    async def end(self) -> None:
        await self._going_on.aclose()
        for task in self._leaving:
            task.cancel()
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._furniture.aclose()

    async def note(self, why: str) -> None:
        self._take_note(why, (), self.house.settings)
        await self._tell()

    def _take_note(self, why: str, refused: Sequence[str], settings: Settings) -> None:
        """Known here at once, and to all as soon as the database takes it."""
        if refused:
            self._lasting.in_force.refuse(refused)
        else:
            self._lasting.store.revision = settings.revision
            self._lasting.in_force.take(settings.revision)
        self._untold.append((settings.revision, settings.text, socket.gethostname(), why, refused))

    async def _tell(self) -> None:
        while self._untold:
            await self._lasting.store.note_revision(*self._untold[0])
            del self._untold[0]
        if self._look_again:
            await self._lasting.store.look_again(self._look_again)
            self._look_again = []

    # -- another configuration ------------------------------------------------------------------------

    async def follow(self, origin: Source) -> None:
        """Whenever a file has changed, and at SIGHUP."""
        # Not by the loop, which gives the signal its deadly meaning back when it is closed.
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self._asked.set))
        try:
            await self.watch(origin)
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def watch(self, origin: Source) -> None:
        """Whenever a file has changed."""
        await Loop("configuration", most=_LOOKS_AT_FILES).run(partial(self._look, origin))

    async def _look(self, origin: Source) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOKS_AT_FILES):
                await self._asked.wait()
        if self._asked.is_set():
            self._asked.clear()
            self._due = "SIGHUP"
        elif await asyncio.to_thread(origin.has_changed):
            self._due = self._due or "a changed file"
        if self._due:
            await self.take(origin, self._due)
            self._due = ""
        await self._tell()

    async def take(self, origin: Source, why: str) -> None:
        self._systemd.reloading()
        try:
            await self._take(origin, why)
        finally:
            self._systemd.ready(self.status)

    async def _take(self, origin: Source, why: str) -> None:
        """Or refuse it. Raises whatever keeps it from being judged, which is then tried again."""
        settings, furniture = self.house.settings, AsyncExitStack()
        try:
            settings = await asyncio.to_thread(origin.read)
            if fixed := find_fixed(self.house.settings, settings):
                raise Misconfigured(fixed)
            with telling_lines(settings):
                house = await furniture.enter_async_context(furnish(settings, self._lasting, first=False))
            await house.doors.ended.look()  # nobody who has signed out is let in again meanwhile
        except Misconfigured as problem:
            await furniture.aclose()
            log.error(
                "a changed configuration is refused; the one before stays in force",
                why=why,
                problems=list(problem.problems),
            )
            self._take_note(why, problem.problems, settings)
            return
        except BaseException:
            await furniture.aclose()
            raise
        before = self.house.settings
        await self._move_into(house, furniture)
        if before.archives != settings.archives:
            self._look_again = [UNTIL, *(f"{name}: {THERE}" for name in before.archives)]
        self._take_note(why, (), settings)
        log.info("another configuration is in force", why=why, revision=settings.revision)

    async def _move_into(self, house: House, furniture: AsyncExitStack) -> None:
        before = self._furniture
        self.house, self._furniture = house, furniture
        at_work = self._engine.adopt(house.steps, house.vendors.capacities, len(house.vendors.names))
        self._lasting.keeping.incoming.adopt(house.settings)
        if self._storage is not None:
            await asyncio.to_thread(self._storage.adopt, house.settings, house.doors.returned)
        doors = await self.entrances.turn_to(house.doors)
        await self._going_on.aclose()
        self._going_on = AsyncExitStack()
        await self._go_on()
        task = asyncio.create_task(_leave(before, doors, at_work), name="leaving a configuration")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _leave(
    furniture: AsyncExitStack, doors: Sequence[DoorsOfOne], at_work: Sequence[asyncio.Task[None]]
) -> None:
    """Steps and requests that began under it may end, then whatever they have begun besides."""
    try:
        if at_work:
            await asyncio.wait(at_work)
        for each in doors:
            await each.see_out()
            await each.shut()
        await asyncio.sleep(_LEFT_ALONE)
    finally:
        await furniture.aclose()
