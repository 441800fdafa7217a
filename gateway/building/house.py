"""All parts under one configuration, furnished in the order in which they need each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.building.archives import Archives, build_archives
from gateway.building.destinations import build_destinations
from gateway.building.doors import Doors, build_doors
from gateway.building.ground import Ground, Lasting, lay_ground, lay_lasting
from gateway.building.peers import build_checks, know_peers
from gateway.console.oidc import SignInService
from gateway.delivery.dispatch import Destination, Dispatch
from gateway.jobs.engine import Engine, Pace
from gateway.sectra.servers import SectraServers
from gateway.settings.sections import Settings
from gateway.watch.alerts import Alerts
from gateway.watch.audit_trail import AuditTrail
from gateway.watch.canary import CanaryWatch
from gateway.watch.causes import Machine, Troubles, departments_of
from gateway.watch.certificates import Certificates
from gateway.watch.channels import Channels
from gateway.watch.figures import Figures
from gateway.watch.metrics import JobMetrics
from gateway.watch.outage import Outage
from gateway.watch.quality import QualityWatch
from gateway.watch.reconcile import Reconciliation
from gateway.watch.silence import Silence
from gateway.watch.traces import TraceExport
from gateway.work.admission import Admission
from gateway.work.housekeeping import Housekeeping
from gateway.work.recovery import Recovery
from gateway.work.sealing import Sealing
from gateway.work.shadowing import Shadowing
from gateway.work.steps import JobSteps
from gateway.work.vendors import Vendors


@dataclass(frozen=True, slots=True)
class House:
    settings: Settings
    lasting: Lasting
    sign_in: SignInService | None
    servers: SectraServers
    vendors: Vendors
    archives: Archives
    destinations: Mapping[str, Destination]
    doors: Doors
    steps: JobSteps
    engine: Engine
    housekeeping: Housekeeping
    sealing: Sealing
    recovery: Recovery
    admission: Admission
    alerts: Alerts
    channels: Channels
    outage: Outage
    silence: Silence
    reconciliation: Reconciliation
    figures: Figures
    certificates: Certificates
    canaries: CanaryWatch
    quality: QualityWatch
    shadowing: Shadowing
    trail: AuditTrail | None
    traces: TraceExport | None


@asynccontextmanager
async def build(settings: Settings, url: str, pace: Pace | None = None) -> AsyncIterator[House]:
    async with lay_lasting(settings, url) as lasting, furnish(settings, lasting, pace) as house:
        yield house


@asynccontextmanager
async def furnish(
    settings: Settings, lasting: Lasting, pace: Pace | None = None, *, first: bool = True
) -> AsyncIterator[House]:
    """All that depends on the configuration."""
    async with lay_ground(settings, lasting, first) as ground:
        archives = build_archives(ground)
        destinations = build_destinations(ground, archives)
        doors = build_doors(ground, archives)
        yield _build_house(ground, archives, destinations, doors, pace)


def _build_house(
    ground: Ground,
    archives: Archives,
    destinations: Mapping[str, Destination],
    doors: Doors,
    pace: Pace | None,
) -> House:
    settings, vendors, lasting = ground.settings, ground.vendors, ground.lasting
    store, circuits, lookup = lasting.store, lasting.circuits, archives.lookup

    def on_notice(notice: str) -> None:
        circuits.hear(notice)
        lasting.commitments.hear(notice)

    steps = JobSteps(
        settings,
        store,
        lookup,
        ground.slides,
        vendors,
        ground.status,
        Dispatch(store, destinations, circuits),
        lasting.keeping.spool,
        lasting.keeping.brought_by,
        circuits,
    )
    checks = build_checks(ground, archives, destinations)
    circuits.know(know_peers(settings, vendors, checks), steps.tell_waiting, settings.alerts.ask_idle)
    outage = Outage(store, ground.channels, settings.data_dir, remind=settings.alerts.remind)
    return House(
        settings=settings,
        lasting=lasting,
        sign_in=ground.sign_in,
        servers=ground.servers,
        vendors=vendors,
        archives=archives,
        destinations=destinations,
        doors=doors,
        steps=steps,
        engine=Engine(
            store,
            lasting.url,
            steps,
            vendors.capacities,
            pace,
            JobMetrics(),
            len(vendors.names),
            on_notice,
        ),
        housekeeping=Housekeeping(settings, store, lasting.keeping.spool),
        sealing=Sealing(settings, store),
        recovery=Recovery(store, checks, circuits.bars),
        admission=ground.admission,
        alerts=_build_alerts(ground, outage),
        channels=ground.channels,
        outage=outage,
        silence=Silence(settings, store),
        reconciliation=Reconciliation(
            settings,
            store,
            lookup,
            archives.webs,
            lambda application: not vendors.works_on_slide(application.adapter),
        ),
        figures=ground.figures,
        certificates=Certificates(settings, store, checks, circuits.bars),
        canaries=CanaryWatch(
            settings,
            store,
            {name: checks[f"adapters.{name}"] for name in vendors.names},
            vendors.works_on_slide,
        ),
        quality=QualityWatch(settings, store),
        shadowing=Shadowing(settings, store),
        trail=ground.trail,
        traces=ground.traces,
    )


def _build_alerts(ground: Ground, outage: Outage) -> Alerts:
    settings, lasting = ground.settings, ground.lasting
    store = lasting.store
    sources = Troubles(settings, store), Machine(settings, outage.well_for, lasting.in_force.problems)
    return Alerts(
        store,
        ground.channels,
        sources,
        departments_of(settings),
        group=settings.alerts.group,
        remind=settings.alerts.remind,
    )
