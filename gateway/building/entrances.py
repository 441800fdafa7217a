"""The listeners, which stay open while the doors behind them change with the configuration."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from gateway.building.doors import Doors
from gateway.intake.listening import opening
from gateway.intake.revolving import DoorsOfOne, Revolving
from gateway.settings.certificates import serving
from gateway.settings.sections import Listen, Settings
from gateway.systemd import Systemd

log = structlog.get_logger(__name__)


class Entrances:
    """Where one comes in, whatever configuration is in force: for each of the doors."""

    def __init__(self, doors: Doors) -> None:
        self.web = Revolving()
        self.vendors = Revolving() if doors.vendors is not None else None
        self.monitor = Revolving() if doors.monitor is not None else None

    async def turn_to(self, doors: Doors) -> list[DoorsOfOne]:
        """Those that were in force, which may still be gone through."""
        pairs = (self.web, doors.web), (self.vendors, doors.vendors), (self.monitor, doors.monitor)
        left = [await each.turn_to(to) for each, to in pairs if each is not None and to is not None]
        return [each for each in left if each is not None]


@asynccontextmanager
async def monitored(
    doors: Doors | Entrances, settings: Settings, systemd: Systemd | None = None
) -> AsyncIterator[None]:
    """For those who watch, whatever part of the gateway runs here."""
    async with AsyncExitStack() as stack:
        if doors.monitor is not None and settings.monitor is not None:
            where = Listen(host=settings.monitor.host, port=settings.monitor.port)
            port = await stack.enter_async_context(
                opening(doors.monitor, where, None, given=_given(systemd, "monitor"), place="monitor")
            )
            log.info("listening for those who watch", host=where.host, port=port)
        yield


@asynccontextmanager
async def listening(
    doors: Doors | Entrances, settings: Settings, systemd: Systemd | None = None
) -> AsyncIterator[int]:
    """The doors open; yields the port."""
    async with AsyncExitStack() as stack:
        theirs = settings.vendors.listen
        if doors.vendors is not None and theirs is not None:
            tls = serving("vendors.listen.tls", theirs.tls, ssl.CERT_REQUIRED) if theirs.tls else None
            given = _given(systemd, "vendors")
            port = await stack.enter_async_context(
                opening(doors.vendors, theirs, tls, given=given, place="vendors.listen")
            )
            log.info("listening for vendors", host=theirs.host, port=port)
        ours = settings.listen
        tls = serving("listen.tls", ours.tls) if ours.tls else None
        yield await stack.enter_async_context(opening(doors.web, ours, tls, given=_given(systemd, "web")))


def _given(systemd: Systemd | None, name: str) -> Sequence[socket.socket]:
    return systemd.sockets(name) if systemd is not None else ()


@asynccontextmanager
async def storing(doors: Doors, settings: Settings) -> AsyncIterator[None]:
    if settings.dimse is None:
        yield
        return
    from gateway.intake import dimse

    assert doors.storage is not None  # where `dimse` is configured there is one
    async with dimse.storing(doors.storage, settings.dimse.host, settings.dimse.port):
        yield
