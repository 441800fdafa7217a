"""Has every part of the gateway built, and starts and stops them in order. The map of the house:

    building       the parts made from the configuration: `ground`, `archives`, `destinations`, `doors`,
                   `peers`, all in one `house`; the `tenancy` moves into a changed one, the `entrances` stay
    settings       gateway.yaml and the environment: `sections` says what may stand there
    intake         the doors: sectra (/ia), slide_access and vendors (/adapters), rest (/api/v1), health,
                   stow, dimse (our storage service); `incoming` keeps what is sent until it is quiet
    console        the pages for people, and how they sign in
    work           what is done in each state: `study_way` and `slide_way`, and `steps`, which takes one
    watch          counts for Prometheus; alerts, and who hears of them; `audit_trail`, what an audit
                   collector outside hears; `silence`; what an archive has
                   and nobody processed (`reconcile`); whether a vendor works (`canary`), and as it
                   did in its first weeks (`drift`, `quality`)
    delivery       where results go: the slide, an archive, a PACS, the RIS; `dispatch` sees to each of them
    archives       where a study is (`lookup`), what of it is wanted (`choice`), and its files (`spool`)
    privacy        what identifies somebody, and what a vendor is sent in its place
    sectra         what Sectra says, and a client for all that can be asked of it
    dicom          DICOM as it streams, and its two transports
    jobs           the engine, which knows nothing of medicine: `states` is the table, `store` every query
    contract, kit  all an adapter may see of us, and what adapters share (a vendor is a package of adapters/);
                   `suite` is what each of them has to pass
    circuits       which peers are away, refuse us or are paused: their jobs wait, for all replicas
    gate           what those who call a peer ask before, and tell afterwards
    ailments       what kind of trouble a peer has, in words; `checkups` asks how it is
    untold         whose slides couldn't be told so: they are told a little later
    calls          whom calls under way wait for in silence: he is asked whether he is well
    http           what a failed call by HTTP means to us, whoever was called
    sessions       how each of them is reached: authorities, certificates, proxies
    loops          how whatever goes on for ever survives what breaks it
    traffic        how many bytes went to each peer and came from it
    buffers        memory for bytes on their way
    spans          how long steps and calls took, if anybody collects traces
    embedded       PostgreSQL below data_dir, unless database_url names a server
    evidence       what a hospital asks before it signs: `gateway evidence` writes it
    systemd        what it hears of us, and the sockets it gives us, where it has started us
    nearest        the name that was meant, where another was written
    extras         what isn't installed everywhere, and what is said then

A job comes in through a door, is committed by the store, and claimed by the engine, which takes it from step
to step: locating, submitting, analysing, delivering. Where to change

    the words on a slide when a vendor refuses    delivery.slide_status; the reason: http, the adapter
    how long a retry waits                        settings.applications (Retry.pause), asked by jobs.engine
    which images and tags a vendor is sent        archives.choice; of a slide: intake.slide_access
    what a RIS message contains                   delivery.wording (the text), delivery.hl7 (the segments)
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import AsyncExitStack

import structlog

from gateway import __version__
from gateway.archives.spool import Spool
from gateway.buffers import keep_buffers
from gateway.building.entrances import listening, monitored, storing
from gateway.building.ground import lay_lasting
from gateway.building.tenancy import Part, Tenancy
from gateway.contract import Unreachable
from gateway.database import database, prepare
from gateway.intake.listening import raise_open_files
from gateway.loops import beside
from gateway.settings.checks import find_doubts
from gateway.settings.sections import Settings
from gateway.settings.source import Source
from gateway.systemd import Systemd
from gateway.watch.roll import Roll

log = structlog.get_logger(__name__)

_TURN = 0.0005  # seconds that a thread at work lets the event loop wait for a turn; Python's own are 0.005
_FRESH = 10_000  # objects more that were made than are gone: then the young ones are looked through


def _keep_for_good() -> None:
    """All that is there now, the house and its libraries: to look whether any of it is rubbish takes 100 ms,
    in which nobody would get an answer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_FRESH, *gc.get_threshold()[1:])


async def run(
    settings: Settings,
    only: Part | None = None,
    source: str = "",
    origin: Source | None = None,
    systemd: Systemd | None = None,
) -> None:
    """The daemon: until SIGTERM or SIGINT. `source`, `origin`: where the settings come from."""
    systemd = systemd or Systemd()
    os.umask(0o077)  # what we write holds patients' data
    raise_open_files()
    sys.setswitchinterval(_TURN)
    keep_buffers()
    spool = Spool(settings.data_dir)
    await asyncio.to_thread(spool.open)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(beside(systemd.show_life()))
        systemd.busy("opening the database, which may be migrated first")
        url = await stack.enter_async_context(database(settings, join=only is not None))
        await prepare(settings, url)
        log.info("starting", configuration=source, version=__version__)
        lasting = await stack.enter_async_context(lay_lasting(settings, url))
        tenancy = await Tenancy.begin(settings, lasting, only, systemd)
        stack.push_async_callback(tenancy.end)
        house = tenancy.house
        for doubt in (*find_doubts(settings), *house.vendors.find_doubts(settings)):
            log.warning("worth a second thought", why=doubt)
        await asyncio.to_thread(spool.claim, await lasting.store.installation())
        if lasting.keeping.claim is not None:
            try:
                await lasting.keeping.claim()
            except Unreachable as away:  # what needs it waits, all else goes on
                log.error("nothing that is sent to us can be kept for now", error=away.message)
        await tenancy.note("start")
        await tenancy.tell_start()
        stack.push_async_callback(tenancy.tell_end)
        roll = Roll(lasting.store, only or "intake and workers", lambda: tenancy.worker)
        await stack.enter_async_context(roll.present())
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await tenancy.open()
        await stack.enter_async_context(monitored(tenancy.entrances, settings, systemd))
        await stack.enter_async_context(beside(lasting.keeping.incoming.run()))
        if only != "intake":
            await stack.enter_async_context(lasting.circuits.watching())
            await stack.enter_async_context(house.engine.working())
            await stack.enter_async_context(beside(house.sealing.run()))
            await stack.enter_async_context(storing(house.doors, settings))
        if only != "workers":
            port = await stack.enter_async_context(listening(tenancy.entrances, settings, systemd))
            log.info("listening", host=settings.listen.host, port=port, version=__version__)
        if origin is not None:
            await stack.enter_async_context(beside(tenancy.follow(origin)))
        _keep_for_good()
        systemd.ready(tenancy.status)
        await stopped.wait()
        log.info("stopping")
        systemd.stopping()
