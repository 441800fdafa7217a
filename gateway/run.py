"""Builds every part of the gateway, and starts and stops them in order. The map of the house:

    settings       gateway.yaml and the environment: `sections` says what may stand there
    intake         the doors: sectra (/ia), slide_access and vendors (/adapters), rest (/api/v1), health,
                   stow, dimse (our storage service); `incoming` keeps what is sent until it is quiet
    work           what is done in each state: `study_way` and `slide_way`, and `steps`, which takes one
    watch          counts for Prometheus
    delivery       where results go: the slide, an archive, a PACS, the RIS; `dispatch` sees to each of them
    archives       where a study is (`lookup`), what of it is wanted (`choice`), and its files (`spool`)
    sectra         what Sectra says, and a client for all that can be asked of it
    dicom          DICOM as it streams, and its two transports
    jobs           the engine, which knows nothing of medicine: `states` is the table, `store` every query
    contract, kit  all an adapter may see of us, and what adapters share (a vendor is a package of adapters/);
                   `suite` is what each of them has to pass
    http           what a failed call by HTTP means to us, whoever was called
    embedded       PostgreSQL below data_dir, unless database_url names a server

A job comes in through a door, is committed by the store, and claimed by the engine, which takes it from step
to step: locating, submitting, analysing, delivering. Where to change

    the words on a slide when a vendor refuses    delivery.slide_status; the reason: http, the adapter
    how long a retry waits                        settings.sections (Retry.pause), asked by jobs.engine
    which images and tags a vendor is sent        archives.choice; of a slide: intake.slide_access
    what a RIS message contains                   delivery.wording (the text), delivery.hl7 (the segments)
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

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
from gateway.archives.sectra import SlideArchive, Slides
from gateway.archives.spool import Spool
from gateway.archives.terms import Terms
from gateway.database import database, open_store, prepare
from gateway.delivery.commitment import Commitments
from gateway.delivery.destinations import ByCStore, ByStow, IntoArchive, IntoRis
from gateway.delivery.dispatch import Destination, Dispatch, OnTheSlide
from gateway.delivery.originals import Originals
from gateway.delivery.result_objects import ResultObjects
from gateway.delivery.slide import SlideWriter
from gateway.delivery.slide_status import SlideStatus
from gateway.dicom.association import DimsePeer
from gateway.dicom.staging import Staging
from gateway.http import connector
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
from gateway.settings.certificates import serving
from gateway.settings.sections import (
    CStoreDestination,
    Dimse,
    Hl7Destination,
    Listen,
    Settings,
    StowDestination,
)
from gateway.settings.sections import DicomwebArchive as DicomwebSettings
from gateway.settings.sections import SectraArchive as SectraSettings
from gateway.watch.metrics import JobMetrics
from gateway.work.changes import Changes
from gateway.work.housekeeping import Housekeeping
from gateway.work.recovery import Check, Recovery
from gateway.work.steps import JobSteps
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

Part = Literal["intake", "workers"]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the parts stand on."""

    settings: Settings
    url: str
    session: aiohttp.ClientSession
    store: Store
    spool: Spool
    staging: Staging
    awaited: Awaited
    commitments: Commitments
    servers: SectraServers
    slides: Slides
    vendors: Vendors
    writer: SlideWriter
    status: SlideStatus


@dataclass(frozen=True, slots=True)
class Archives:
    webs: Mapping[str, DicomwebArchive]
    dimse: Mapping[str, DimseArchive]
    of_slides: Mapping[str, SlideArchive]
    lookup: Lookup

    @property
    def named(self) -> dict[str, Archive]:
        return {**self.webs, **self.dimse, **self.of_slides}


@dataclass(frozen=True, slots=True)
class Doors:
    web: web.Application
    storage: DimseDoor
    incoming: Incoming


@dataclass(frozen=True, slots=True)
class House:
    store: Store
    servers: SectraServers
    vendors: Vendors
    archives: Archives
    destinations: Mapping[str, Destination]
    doors: Doors
    engine: Engine
    housekeeping: Housekeeping
    recovery: Recovery


@asynccontextmanager
async def build(settings: Settings, url: str, pace: Pace | None = None) -> AsyncIterator[House]:
    async with _lay_ground(settings, url) as ground:
        archives = _build_archives(ground)
        destinations = _build_destinations(ground, archives)
        doors = _build_doors(ground)
        yield _build_house(ground, archives, destinations, doors, pace)


@asynccontextmanager
async def _lay_ground(settings: Settings, url: str) -> AsyncIterator[Ground]:
    async with (
        open_store(settings, url) as store,
        aiohttp.ClientSession(
            connector=connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**20,
        ) as session,
    ):
        staging = Staging(incoming_root(settings.data_dir) / ".arriving", settings.least_free)
        servers = SectraServers(settings.sectra, session)
        spool = Spool(settings.data_dir, settings.least_free)
        vendors = Vendors(settings, session)
        vendors.check(settings)
        writer = SlideWriter(store)
        yield Ground(
            settings,
            url,
            session,
            store,
            spool,
            staging,
            Awaited(_dimse(settings).ae_title, staging),
            Commitments(),
            servers,
            Slides(servers, spool),
            vendors,
            writer,
            SlideStatus(writer, servers),
        )


def _build_archives(ground: Ground) -> Archives:
    settings = ground.settings
    webs, dimse, of_slides = {}, {}, {}
    for name, place in settings.archives.items():
        if isinstance(place, DicomwebSettings):
            webs[name] = DicomwebArchive(
                name,
                place.url,
                ground.session,
                username=place.username,
                password=place.password.get_secret_value() if place.password else None,
                token=place.token.get_secret_value() if place.token else None,
            )
        elif isinstance(place, SectraSettings):
            of_slides[name] = SlideArchive(name)
        else:
            ours = _dimse(settings).ae_title
            peer = DimsePeer(f"archive {name}", place.host, place.port, place.ae_title, ours)
            awaited = ground.awaited if settings.dimse else None
            dimse[name] = DimseArchive(name, peer, ground.staging, awaited, place.retrieve)
    arrived = [ArrivedStudies(name, settings.data_dir) for name in settings.applications]
    terms = {
        name: Terms(place.only_online, place.hours, place.rate) for name, place in settings.archives.items()
    }
    makers = {application.manufacturer for application in settings.applications.values()}
    known: dict[str, Archive] = {
        **webs,
        **dimse,
        **of_slides,
        **{studies.name: studies for studies in arrived},
    }
    return Archives(webs, dimse, of_slides, Lookup(known, terms, makers, of_slides))


def _build_destinations(ground: Ground, archives: Archives) -> dict[str, Destination]:
    settings = ground.settings
    originals = Originals(ground.store, archives.lookup, ground.slides)
    objects = ResultObjects(settings, ground.store, originals, ground.spool)
    named: dict[str, Destination] = {
        "sectra": OnTheSlide(ground.status, ground.store, originals, ground.spool)
    }
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination):
            named[name] = IntoArchive(name, ByStow(ground.session, archives.webs[place.archive]), objects)
        elif isinstance(place, CStoreDestination):
            keeper = ByCStore(archives.dimse[place.archive], ground.commitments)
            named[name] = IntoArchive(name, keeper, objects)
        else:
            named[name] = IntoRis(name, place, settings, ground.store, originals, ground.spool)
    return named


def _build_doors(ground: Ground) -> Doors:
    settings, store, vendors = ground.settings, ground.store, ground.vendors
    access = Access(settings.api_tokens)
    incoming = Incoming(settings, store)
    returned = Returned(store, vendors.senders, ground.spool)
    changes = Changes(store, vendors, ground.spool)
    sectra_door = sectra.SectraDoor(settings, store, ground.servers, ground.status, ground.writer, changes)
    vendor_door = VendorDoor(settings, store, vendors, ground.status, ground.writer)
    stow_door = StowDoor(settings, access, ground.staging, incoming, returned, vendors.push_tokens)
    doors = web.Application(
        middlewares=[sectra.say_versions, problems.explain], client_max_size=problems.LARGEST_REQUEST
    )
    rest_door, health_door = rest.RestDoor(settings, store, access), health.HealthDoor(store, ground.url)
    for door in (sectra_door, vendor_door, stow_door, rest_door, health_door):
        doors.add_routes(door.routes())
    doors.on_startup.append(stow_door.prepare)
    doors.on_cleanup.extend([sectra_door.close, vendor_door.close])
    storage = DimseDoor(settings, ground.awaited, incoming, ground.commitments, returned)
    return Doors(doors, storage, incoming)


def _build_house(
    ground: Ground,
    archives: Archives,
    destinations: Mapping[str, Destination],
    doors: Doors,
    pace: Pace | None,
) -> House:
    settings, store, vendors = ground.settings, ground.store, ground.vendors
    dispatch = Dispatch(store, destinations)
    lookup, slides, status = archives.lookup, ground.slides, ground.status
    steps = JobSteps(settings, store, lookup, slides, vendors, status, dispatch, ground.spool)
    engine = Engine(store, ground.url, steps, vendors.capacities, pace, JobMetrics())
    housekeeping = Housekeeping(settings, store, ground.spool)
    recovery = Recovery(store, _build_checks(ground, archives, destinations))
    return House(
        store, ground.servers, vendors, archives, destinations, doors, engine, housekeeping, recovery
    )


def _build_checks(
    ground: Ground, archives: Archives, destinations: Mapping[str, Destination]
) -> Mapping[str, Check]:
    """Whether each peer is well, by the names that the configuration gives them."""
    settings, vendors = ground.settings, ground.vendors
    checks = {f"archives.{name}": archive.check for name, archive in archives.named.items()}
    for name, place in settings.destinations.items():
        destination = destinations[name]
        if isinstance(destination, IntoRis):
            checks[f"destinations.{name}"] = destination.check
        elif not isinstance(place, Hl7Destination):
            checks[f"destinations.{name}"] = archives.named[place.archive].check
    for name in vendors.names:
        checks[f"adapters.{name}"] = vendors.make(name, settings.data_dir).check
    return checks


@asynccontextmanager
async def listening(doors: Doors, listen: Listen) -> AsyncIterator[int]:
    """The doors open; yields the port."""
    tls = None if listen.tls is None else serving("listen.tls", listen.tls)
    runner = web.AppRunner(doors.web, access_log=None, shutdown_timeout=5, handler_cancellation=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def run(settings: Settings, only: Part | None = None) -> None:
    """The daemon: until SIGTERM or SIGINT."""
    spool = Spool(settings.data_dir)
    await asyncio.to_thread(spool.open)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database(settings, join=only is not None))
        await prepare(settings, url)
        house = await stack.enter_async_context(build(settings, url))
        await asyncio.to_thread(spool.claim, await house.store.installation())
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stack.enter_async_context(gathering(house.doors.incoming))
        if only != "intake":
            await stack.enter_async_context(working(house.engine))
            await stack.enter_async_context(beside(house.housekeeping.run()))
            await stack.enter_async_context(beside(house.recovery.run()))
            if settings.dimse is not None:
                where = settings.dimse.host, settings.dimse.port
                await stack.enter_async_context(storing(house.doors.storage, *where))
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
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _dimse(settings: Settings) -> Dimse:
    return settings.dimse or Dimse()
