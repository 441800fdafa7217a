"""The peers by the names that the configuration gives them: how each is asked whether it is well, and what
waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

from gateway.archives.bucket import PEER as SPOOL
from gateway.building.archives import Archives
from gateway.building.ground import Ground
from gateway.circuits import Peer, quota_of
from gateway.delivery.destinations import IntoRis
from gateway.delivery.dispatch import Destination
from gateway.jobs.states import WORKING, State
from gateway.jobs.store.parked import Backlog
from gateway.settings.peers import AdapterSettings, Kept
from gateway.settings.sections import Hl7Destination, Settings
from gateway.watch.syslog import PEER as AUDIT_COLLECTOR
from gateway.work.recovery import Check
from gateway.work.vendors import Vendors


def build_checks(
    ground: Ground, archives: Archives, destinations: Mapping[str, Destination]
) -> Mapping[str, Check]:
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
    for name in settings.sectra.servers if settings.applications else ():
        application = next(iter(settings.applications))
        checks[f"sectra.{name}"] = partial(ground.servers.check, name, application)
    if ground.lasting.keeping.check is not None:
        checks[SPOOL] = ground.lasting.keeping.check
    if ground.trail is not None:
        checks[AUDIT_COLLECTOR] = ground.trail.check
    return checks


def know_peers(settings: Settings, vendors: Vendors, checks: Mapping[str, Check]) -> Mapping[str, Peer]:
    """What a doctor calls them, and the jobs that can only wait while one is away."""
    early = (State.RECEIVED, State.LOCATING)
    peers = {}
    for name, archive in settings.archives.items():
        first = [
            each
            for each, application in settings.applications.items()
            if application.archives[:1] == [name] and application.when_unreachable == "wait"
        ]
        backlog = [Backlog((State.SUBMITTING,), archive=name)]
        if first:
            backlog.append(Backlog(early, applications=first))
        peers[f"archives.{name}"] = Peer(
            f"the archive {name}",
            checks[f"archives.{name}"],
            backlog,
            asked=archive.hours is None,
            whereabouts=_whereabouts(f"archives.{name}", archive, archive),
        )
    for name in vendors.names:
        makers = {each.manufacturer for each in settings.applications.values() if each.adapter == name}
        called = makers.pop() if len(makers) == 1 else ""
        vendor = settings.adapters.get(name)
        peers[f"adapters.{name}"] = Peer(
            called or name,
            checks[f"adapters.{name}"],
            [Backlog((State.SUBMITTING,), adapter=name)],
            vendors.hold_after[name],
            asked=True,
            whereabouts=_whereabouts(f"adapters.{name}", vendor, vendor) if vendor is not None else "",
        )
        peers[quota_of(name)] = Peer(called or name, backlog=[Backlog((State.SUBMITTING,), adapter=name)])
    for name, destination in settings.destinations.items():
        place = destination if destination.kind == "hl7" else settings.archives[destination.archive]
        peers[f"destinations.{name}"] = Peer(
            f"the destination {name}",
            checks[f"destinations.{name}"],
            asked=destination.kind == "hl7",  # the others are archives
            whereabouts=_whereabouts(f"destinations.{name}", destination, place),
        )
    for name, server in settings.sectra.servers.items():
        waiting = [Backlog(early, server=name)]
        peers[f"sectra.{name}"] = Peer(
            f"Sectra ({name})",
            checks.get(f"sectra.{name}"),
            waiting,
            asked=f"sectra.{name}" in checks,
            whereabouts=_whereabouts(f"sectra.servers.{name}", server, server),
        )
    for name, application in settings.applications.items():
        peers[f"applications.{name}"] = Peer(
            application.display_name, backlog=[Backlog(WORKING, applications=[name])]
        )
    if SPOOL in checks:
        peers[SPOOL] = Peer("the store of what is sent to us", checks[SPOOL])
    if AUDIT_COLLECTOR in checks:
        peers[AUDIT_COLLECTOR] = Peer("the audit collector", checks[AUDIT_COLLECTOR])
    return peers


def _whereabouts(named: str, kept: Kept, place: object) -> str:
    """Whoever is woken looks for no configuration first: of an address the host and port alone."""
    address = _address_of(place)
    owner = f", owned by {kept.owner}" if kept.owner else ""
    runbook = f"; see {kept.runbook}" if kept.runbook else ""
    return f"It is {named}{f' at {address}' if address else ''}{owner}{runbook}."


def _address_of(place: object) -> str:
    told = place.options if isinstance(place, AdapterSettings) else dict(vars(place))
    urls = told.get("callback_urls") or [told.get("url")]
    if isinstance(url := urls[0], str):
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    return f"{told['host']}:{told['port']}" if "host" in told and "port" in told else ""
