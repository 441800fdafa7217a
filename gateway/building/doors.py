"""The doors, and which of them stand in which listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.building.archives import Archives
from gateway.building.ground import Ground
from gateway.console.door import ConsoleDoor
from gateway.console.pages import guarded, tell_missing
from gateway.delivery.originals import Originals
from gateway.delivery.pictures import Pictures
from gateway.intake import bodies, problems, sectra
from gateway.intake.access import Access
from gateway.intake.audit import AuditDoor
from gateway.intake.callers import Callers
from gateway.intake.certified import ClientCertificates
from gateway.intake.ended import EndedVisits
from gateway.intake.guesses import Guesses
from gateway.intake.health import HealthDoor
from gateway.intake.peers import PeersDoor
from gateway.intake.quality import QualityDoor
from gateway.intake.reconcile import ReconcileDoor
from gateway.intake.rest import RestDoor
from gateway.intake.returned import Returned
from gateway.intake.revisions import RevisionsDoor
from gateway.intake.sectra import SectraDoor
from gateway.intake.stow import StowDoor
from gateway.intake.vendors import VendorDoor
from gateway.intake.visits import Visits
from gateway.settings.keys import encryption_keys
from gateway.work.changes import Changes
from gateway.work.disguise import Disguises
from gateway.work.interest import Interest

if TYPE_CHECKING:
    from gateway.intake.dimse import DimseDoor


@dataclass(frozen=True, slots=True)
class Doors:
    """`vendors`: theirs, if they have one of their own. `monitor`: for those who watch, if they have one."""

    vendors: web.Application | None
    monitor: web.Application | None
    web: web.Application
    storage: DimseDoor | None  # whoever speaks no DIMSE doesn't load it
    ended: EndedVisits
    returned: Returned


def build_doors(ground: Ground, archives: Archives) -> Doors:
    settings, vendors, lasting = ground.settings, ground.vendors, ground.lasting
    store = lasting.store
    ended = EndedVisits(store)
    visits = Visits(settings, encryption_keys(settings), ended)
    access = Access(settings.api_tokens, visits)
    returned = Returned(store, vendors.senders, lasting.keeping.inbox)
    changes = Changes(store, vendors, lasting.keeping.spool, Disguises(store, settings))
    sectra_door = SectraDoor(
        settings, store, ground.servers, ground.status, ground.writer, changes, ground.admission
    )
    vendor_door = VendorDoor(settings, store, vendors, ground.status, ground.writer)
    stow_door = StowDoor(
        settings, access, lasting.staging, lasting.keeping.incoming, returned, vendors.push_tokens
    )
    rest_door = RestDoor(settings, store, access)
    guesses = Guesses(Callers(settings.listen.proxies), store)
    pictures = Pictures(Originals(store, archives.lookup, ground.slides), settings.data_dir)
    doors = _build_web(guesses)
    guarded(doors, secure=visits.secure)
    tell_missing(doors, visits.visitor)
    for door in (
        sectra_door,
        stow_door,
        rest_door,
        PeersDoor(settings, store, access, lasting.circuits),
        ReconcileDoor(settings, store, access),
        AuditDoor(store, access),
        QualityDoor(settings, store, access),
        RevisionsDoor(store, access),
        _build_health(ground),
        ConsoleDoor(
            settings,
            store,
            access,
            visits,
            guesses,
            ground.sign_in,
            (pictures, ground.slides),
            Interest(store, vendors),
            lasting.circuits,
        ),
    ):
        doors.add_routes(door.routes())
    for_vendors = _build_web_of_vendors(ground)
    for routes in (vendor_door.routes(), stow_door.routes_of_vendors()):
        (doors if for_vendors is None else for_vendors).add_routes(routes)
    if ground.first:
        doors.on_startup.append(stow_door.prepare)
    doors.on_shutdown.append(rest_door.close)
    doors.on_cleanup.extend([sectra_door.close, vendor_door.close])
    return Doors(
        vendors=for_vendors,
        monitor=_build_monitor(ground),
        web=doors,
        storage=_build_storage(ground, returned),
        ended=ended,
        returned=returned,
    )


def _build_web(guesses: Guesses, *guards: Middleware) -> web.Application:
    first = sectra.say_versions, problems.explain, bodies.give_back, guesses.build()
    doors = web.Application(middlewares=[*first, *guards])
    doors.on_cleanup.append(guesses.close)
    return doors


def _build_web_of_vendors(ground: Ground) -> web.Application | None:
    theirs = ground.settings.vendors.listen
    if theirs is None:
        return None
    guesses = Guesses(Callers(theirs.proxies), ground.lasting.store)
    return _build_web(guesses, ClientCertificates(theirs.tls, "vendors.listen.tls").guard)


def _build_monitor(ground: Ground) -> web.Application | None:
    if ground.settings.monitor is None:
        return None
    door = web.Application(middlewares=[problems.explain])
    door.add_routes(_build_health(ground).routes())
    return door


def _build_health(ground: Ground) -> HealthDoor:
    lasting = ground.lasting
    return HealthDoor(lasting.store, lasting.url, ground.figures, lasting.in_force)


def _build_storage(ground: Ground, returned: Returned) -> DimseDoor | None:
    settings, lasting = ground.settings, ground.lasting
    if settings.dimse is None and not any(each.ae_title for each in settings.applications.values()):
        return None
    from gateway.intake.dimse import DimseDoor

    return DimseDoor(settings, lasting.awaited, lasting.keeping.incoming, lasting.commitments, returned)
