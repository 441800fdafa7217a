"""What the parts stand on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from gateway.archives.arrived import incoming_root
from gateway.archives.awaited import Awaited
from gateway.archives.sectra import Slides
from gateway.building.keeping import Keeping, lay_keeping
from gateway.circuits import Circuits
from gateway.console.oidc import SignInService
from gateway.database import open_store
from gateway.delivery.commitment import Commitments
from gateway.delivery.slide import SlideWriter
from gateway.delivery.slide_status import SlideStatus
from gateway.dicom.staging import Staging
from gateway.intake.health import InForce
from gateway.jobs.store import DatabaseError, Store
from gateway.sectra.servers import SectraServers
from gateway.sessions import Sessions
from gateway.settings.certificates import calling
from gateway.settings.sections import Dimse, Settings
from gateway.watch.audit_messages import Source
from gateway.watch.audit_trail import AuditTrail
from gateway.watch.channels import Channel, Channels, Mail, Webhook, stand_for
from gateway.watch.figures import Figures
from gateway.watch.syslog import Collector
from gateway.watch.traces import TraceExport
from gateway.work.admission import Admission
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lasting:
    """What stays when the configuration changes."""

    url: str
    store: Store
    keeping: Keeping
    staging: Staging
    awaited: Awaited
    commitments: Commitments
    circuits: Circuits
    in_force: InForce


@dataclass(frozen=True, slots=True)
class Ground:
    """What depends on the configuration, and several parts need. `first`: since this process began."""

    settings: Settings
    first: bool
    lasting: Lasting
    sessions: Sessions
    servers: SectraServers
    slides: Slides
    vendors: Vendors
    writer: SlideWriter
    status: SlideStatus
    admission: Admission
    channels: Channels
    sign_in: SignInService | None
    figures: Figures
    trail: AuditTrail | None
    traces: TraceExport | None


def _telling(store: Store) -> Callable[[Sequence[str]], None]:
    """From any thread, to the other replicas."""
    loop = asyncio.get_running_loop()

    async def tell(notices: Sequence[str]) -> None:
        try:
            await store.tell_replicas(notices)
        except DatabaseError as trouble:
            log.info("the other replicas couldn't be told", error=type(trouble).__name__)

    def from_any_thread(notices: Sequence[str]) -> None:
        asyncio.run_coroutine_threadsafe(tell(notices), loop)

    return from_any_thread


@asynccontextmanager
async def lay_lasting(settings: Settings, url: str) -> AsyncIterator[Lasting]:
    async with open_store(settings, url) as store:
        staging = Staging(incoming_root(settings.data_dir) / ".arriving", settings.least_free)
        yield Lasting(
            url=url,
            store=store,
            keeping=lay_keeping(settings, store),
            staging=staging,
            awaited=Awaited(our_title(settings), staging),
            commitments=Commitments(_telling(store)),
            circuits=Circuits(store),
            in_force=InForce(),
        )


@asynccontextmanager
async def lay_ground(settings: Settings, lasting: Lasting, first: bool) -> AsyncIterator[Ground]:
    store = lasting.store
    async with Sessions(settings) as sessions:
        servers = SectraServers(settings.sectra, sessions)
        vendors = Vendors(settings, sessions)
        vendors.check(settings)
        vendors.share_rates(store)
        writer = SlideWriter(store)
        status = SlideStatus(writer, servers, lasting.circuits)
        yield Ground(
            settings=settings,
            first=first,
            lasting=lasting,
            sessions=sessions,
            servers=servers,
            slides=Slides(servers, lasting.keeping.spool),
            vendors=vendors,
            writer=writer,
            status=status,
            admission=Admission(store, servers, status),
            channels=_open_channels(settings, sessions),
            sign_in=_build_sign_in(settings, sessions),
            figures=Figures(settings, store, lambda: settings.revision, lasting.in_force.problems),
            trail=_build_trail(settings, lasting),
            traces=_build_traces(settings, sessions),
        )


def our_title(settings: Settings) -> str:
    return (settings.dimse or Dimse()).ae_title


def _open_channels(settings: Settings, sessions: Sessions) -> Channels:
    channels: dict[str, Channel] = {}
    hearers: dict[str, str] = {}
    hook, email = settings.alerts.webhook, settings.alerts.email
    if hook is not None:
        token = hook.token.get_secret_value() if hook.token else None
        channels["webhook"] = Webhook(hook.url, token, sessions.to("alerts.webhook", hook))
        hearers["webhook"] = stand_for(hook.url)
    if email is not None:
        contacts = {name: department.contact for name, department in settings.departments.items()}
        channels["email"] = Mail(email, contacts)
        hearers["email"] = stand_for(*sorted(email.to), *sorted({each for each in contacts.values() if each}))
    return Channels(channels, hearers)


def _build_trail(settings: Settings, lasting: Lasting) -> AuditTrail | None:
    told = settings.audit_log
    if told is None:
        return None
    collector = Collector(told.host, told.port, calling("audit_log", told))
    known_as = urlsplit(settings.public_url).hostname if settings.public_url else None
    source = Source(told.source or known_as or socket.gethostname(), _titles_of(settings))
    return AuditTrail(collector, source, lasting.store, lasting.circuits, lasting.circuits.bars)


def _build_traces(settings: Settings, sessions: Sessions) -> TraceExport | None:
    told = settings.traces
    return None if told is None else TraceExport(told, sessions.to("traces", told))


def _titles_of(settings: Settings) -> list[str]:
    """Under which we speak DICOM."""
    theirs = [each.ae_title for each in settings.applications.values() if each.ae_title]
    return sorted({settings.dimse.ae_title, *theirs}) if settings.dimse else theirs


def _build_sign_in(settings: Settings, sessions: Sessions) -> SignInService | None:
    oidc = settings.console.oidc
    if oidc is None or settings.public_url is None:
        return None
    return SignInService(oidc, sessions.to("console.oidc", oidc), settings.public_url)
