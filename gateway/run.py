"""Builds every part of the gateway, and starts and stops them in order. The map of the house:

    settings                gateway.yaml and the environment
    embedded                PostgreSQL below data_dir, unless database_url names a server
    jobs.schema, .store     the tables, and every query on them
    sectra.servers          the Sectra servers that we may call back
    archives.lookup         where a study is
    jobs.vendors            the adapters, one for each configured vendor
    jobs.status, .dispatch   what the slide shows; the results to each destination
    jobs.destinations       archives (objects put right by .leaving), the RIS
    jobs.steps, .engine     what is done in each state; who does it, and when
    jobs.housekeeping       files that jobs left behind, data kept long enough
    intake                  the doors: sectra (/ia), vendors (/adapters), stow (/dicomweb), rest (/api/v1),
                            health
    intake.incoming         studies that were sent to us, once they are quiet
    intake.dimse            the storage service, beside the workers: archives send it what they ask for

A job comes in through a door, is committed by the store, and claimed by the engine, which takes it from step
to step: locating, submitting, analysing, delivering.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import aiohttp
import structlog
from aiohttp import web

from gateway import __version__
from gateway.archives.archive import Archive
from gateway.archives.arrived import ArrivedStudies, incoming_root
from gateway.archives.awaited import Awaited
from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.dimse import DimseArchive
from gateway.archives.lookup import Lookup
from gateway.archives.spool import Spool
from gateway.archives.terms import Terms
from gateway.database import database, open_store, prepare
from gateway.delivery.commitment import Commitments
from gateway.delivery.destinations import IntoArchive, IntoPeer, IntoRis
from gateway.delivery.dispatch import Destination, Dispatch, OnTheSlide
from gateway.delivery.originals import Originals
from gateway.delivery.result_objects import ResultObjects
from gateway.delivery.slide import SlideWriter
from gateway.delivery.slide_status import SlideStatus
from gateway.dicom.arrival import Staging
from gateway.dicom.association import DimsePeer
from gateway.intake import health, problems, rest, sectra
from gateway.intake.access import Access
from gateway.intake.dimse import DimseDoor, storing
from gateway.intake.incoming import Incoming, gathering
from gateway.intake.returned import Returned
from gateway.intake.stow import StowDoor
from gateway.intake.vendors import VendorDoor
from gateway.jobs.engine import Engine, Pace
from gateway.jobs.store import Store
from gateway.sectra.servers import SectraServers
from gateway.settings.sections import (
    CStoreDestination,
    Dimse,
    Hl7Destination,
    Listen,
    Settings,
    StowDestination,
)
from gateway.settings.sections import DicomwebArchive as DicomwebSettings
from gateway.settings.sections import DimseArchive as DimseSettings
from gateway.settings.tree import Misconfigured
from gateway.watch.metrics import JobMetrics
from gateway.work.changes import Changes
from gateway.work.housekeeping import Housekeeping
from gateway.work.steps import JobSteps
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

Part = Literal["intake", "workers"]
_LARGEST_REQUEST = 4 * 2**20


@dataclass(frozen=True, slots=True)
class House:
    """The parts that a caller may want to hold."""

    store: Store
    engine: Engine
    housekeeping: Housekeeping
    steps: JobSteps
    vendors: Vendors
    archives: dict[str, Archive]
    reports: dict[str, IntoRis]
    lookup: Lookup
    incoming: Incoming
    storage: DimseDoor
    doors: web.Application


@asynccontextmanager
async def build(settings: Settings, url: str, pace: Pace | None = None) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=2**20,
            )
        )
        spool = Spool(settings.data_dir, settings.least_free)
        servers = SectraServers(settings.sectra, session)
        dimse = settings.dimse or Dimse()
        staging = Staging(incoming_root(settings.data_dir) / ".arriving", settings.least_free)
        awaited = Awaited(dimse.ae_title, staging)
        commitments = Commitments()
        webs = {
            name: DicomwebArchive(
                name,
                one.url,
                session,
                username=one.username,
                password=one.password.get_secret_value() if one.password else None,
                token=one.token.get_secret_value() if one.token else None,
            )
            for name, one in settings.archives.items()
            if isinstance(one, DicomwebSettings)
        }
        peers = {
            name: DimseArchive(
                name,
                DimsePeer(f"archive {name}", one.host, one.port, one.ae_title, dimse.ae_title),
                staging,
                awaited if settings.dimse else None,
                one.retrieve,
            )
            for name, one in settings.archives.items()
            if isinstance(one, DimseSettings)
        }
        archives: dict[str, Archive] = {**webs, **peers}
        arrived = [
            ArrivedStudies(name, settings.data_dir)
            for part in settings.departments.values()
            for name in part.applications
        ]
        terms = {name: Terms(one.only_online, one.hours, one.rate) for name, one in settings.archives.items()}
        makers = {
            one.manufacturer for part in settings.departments.values() for one in part.applications.values()
        }
        lookup = Lookup({**archives, **{one.name: one for one in arrived}}, terms, makers)
        vendors = Vendors(settings, session)
        vendors.check(settings)
        writer = SlideWriter(store)
        status = SlideStatus(writer, servers)
        originals = Originals(store, lookup)
        result_objects = ResultObjects(settings, store, originals, spool)
        reports: dict[str, IntoRis] = {}
        destinations: dict[str, Destination] = {"sectra": OnTheSlide(status, store)}
        for name, place in settings.destinations.items():
            if isinstance(place, StowDestination):
                destinations[name] = IntoArchive(name, webs[place.archive], session, result_objects)
            elif isinstance(place, CStoreDestination):
                destinations[name] = IntoPeer(name, peers[place.archive].peer, commitments, result_objects)
            elif isinstance(place, Hl7Destination):
                destinations[name] = reports[name] = IntoRis(name, place, settings, originals, spool)
        steps = JobSteps(settings, store, lookup, vendors, status, Dispatch(store, destinations), spool)
        engine = Engine(store, url, steps, vendors.capacities, pace, JobMetrics())
        sectra_door = sectra.SectraDoor(
            settings, store, servers, status, writer, Changes(store, vendors, spool)
        )
        stack.push_async_callback(sectra_door.close)
        vendor_door = VendorDoor(settings, store, vendors, status, writer)
        stack.push_async_callback(vendor_door.close)
        incoming = Incoming(settings, store)
        doors = web.Application(
            middlewares=[sectra.say_versions, problems.explain], client_max_size=_LARGEST_REQUEST
        )
        doors.add_routes(sectra_door.routes())
        doors.add_routes(vendor_door.routes())
        access = Access(settings.api_tokens)
        returned = Returned(store, vendors.senders, spool)
        stow_door = StowDoor(settings, access, staging, incoming, returned, vendors.push_tokens)
        doors.add_routes(stow_door.routes())
        doors.on_startup.append(stow_door.prepare)
        doors.add_routes(rest.RestDoor(settings, store, access).routes())
        doors.add_routes(health.HealthDoor(store, url).routes())
        yield House(
            store,
            engine,
            Housekeeping(settings, store, spool),
            steps,
            vendors,
            archives,
            reports,
            lookup,
            incoming,
            DimseDoor(settings, awaited, incoming, commitments, returned),
            doors,
        )


@asynccontextmanager
async def listening(doors: web.Application, listen: Listen) -> AsyncIterator[int]:
    """The doors open; yields the port."""
    runner = web.AppRunner(doors, access_log=None, shutdown_timeout=5, handler_cancellation=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port, ssl_context=_tls(listen)).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def run(settings: Settings, only: Part | None = None) -> None:
    """The daemon: until SIGTERM or SIGINT."""
    await asyncio.to_thread(Spool(settings.data_dir).open)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database(settings, join=only is not None))
        await prepare(settings, url)
        house = await stack.enter_async_context(build(settings, url))
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stack.enter_async_context(gathering(house.incoming))
        if only != "intake":
            await stack.enter_async_context(working(house.engine))
            await stack.enter_async_context(tidying(house.housekeeping))
            if settings.dimse is not None:
                where = settings.dimse.host, settings.dimse.port
                await stack.enter_async_context(storing(house.storage, *where))
        if only != "workers":
            port = await stack.enter_async_context(listening(house.doors, settings.listen))
            log.info("listening", host=settings.listen.host, port=port, version=__version__)
        await stopped.wait()
        log.info("stopping")


@asynccontextmanager
async def working(engine: Engine) -> AsyncIterator[None]:
    """Jobs are worked on; at the end steps may finish, then jobs are handed back."""
    task = asyncio.create_task(engine.run())
    try:
        yield
    finally:
        await engine.stop()
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def tidying(housekeeping: Housekeeping) -> AsyncIterator[None]:
    task = asyncio.create_task(housekeeping.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _tls(listen: Listen) -> ssl.SSLContext | None:
    if listen.tls is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(listen.tls.certificate, listen.tls.key)
        if listen.tls.client_ca is not None:
            context.load_verify_locations(listen.tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            [f"listen.tls: the certificate, key or client_ca can't be used: {error}"]
        ) from None
    return context
