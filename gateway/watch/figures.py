"""What Prometheus is told of more than this process: jobs, peers, certificates, disk and database. A loop
collects it; whoever asks gets what was collected last, with its age, and never waits for the database."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway import __version__, loops, traffic
from gateway.archives.bucket import PEER, calls
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.circuits import Circuit
from gateway.jobs.store.crowds import Crowd
from gateway.jobs.store.pauses import Pause
from gateway.loops import Loop
from gateway.settings.certificates import expiry_of
from gateway.settings.sections import S3Spool, Settings, Tls, Trust, parts_of
from gateway.settings.tree import Misconfigured

EVERY = 10.0
_ANSWERS_WITHIN = 8.0
STATES = ("well", "away", "silent", "failing", "refused", "untrusted", "busy", "paused", "paused_by_gateway")


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    help: str
    labels: Sequence[str] = ()
    counts: bool = False

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        return kind(self.name, self.help, labels=list(self.labels))


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "gateway_build_info",
            "What runs: release, and revision of the configuration",
            ["version", "revision"],
        ),
        Figure(
            "gateway_configuration_refused",
            "Whether a changed configuration was refused, and the one before it stays in force",
        ),
        Figure("gateway_jobs", "Living jobs", ["department", "application", "state"]),
        Figure(
            "gateway_jobs_oldest_age_seconds",
            "How long ago the oldest living job was acknowledged",
            ["department", "application", "state"],
        ),
        Figure(
            "gateway_peer_state", "1 for the state that a peer is in, 0 for the others", ["peer", "state"]
        ),
        Figure("gateway_peer_jobs_waiting", "Jobs that wait for a peer that is away or paused", ["peer"]),
        Figure(
            "gateway_peer_last_success_timestamp_seconds",
            "When a peer last answered as it should, as far as was written down",
            ["peer"],
        ),
        Figure(
            "gateway_peer_received_bytes",
            "Bytes that came from a peer to this process",
            ["peer"],
            counts=True,
        ),
        Figure(
            "gateway_peer_sent_bytes", "Bytes that went to a peer from this process", ["peer"], counts=True
        ),
        Figure(
            "gateway_certificate_expiry_timestamp_seconds",
            "Until when a certificate holds: ours by its place in the configuration, theirs by peer",
            ["whose", "place"],
        ),
        Figure("gateway_disk_free_bytes", "Free space on the disk of data_dir"),
        Figure("gateway_disk_size_bytes", "Size of the disk of data_dir"),
        Figure("gateway_disk_reserve_bytes", "Free space below which no new work begins (least_free)"),
        Figure("gateway_spool_held_bytes", "What was sent to us and lies in the spool's bucket"),
        Figure(
            "gateway_spool_most_bytes",
            "How much may lie in the spool's bucket: beyond it no study is taken in (spool.most_bytes)",
        ),
        Figure(
            "gateway_spool_failures",
            "Calls of this process on the spool's bucket that failed: away, refused, or gone from there",
            ["doing", "kind"],
            counts=True,
        ),
        Figure(
            "gateway_spool_last_failure_timestamp_seconds",
            "When such a call of this process last failed",
        ),
        Figure(
            "gateway_spool_last_success_timestamp_seconds",
            "When a call of this process on the spool's bucket last went well",
        ),
        Figure("gateway_database_up", "Whether the database answered when it was last asked"),
        Figure("gateway_database_answer_seconds", "How long its last answer took"),
        Figure("gateway_alerts_standing", "1 for each cause that somebody has to see to", ["cause"]),
        Figure(
            "gateway_audit_log_oldest_age_seconds",
            "How long ago the first came about of what the audit collector hasn't got yet",
        ),
        Figure("gateway_figures_age_seconds", "How old the figures from the database are"),
        Figure("gateway_loop_failures", "Rounds of a loop of this process that broke", ["loop"], counts=True),
        Figure("gateway_loop_failing", "Whether a loop of this process breaks time after time", ["loop"]),
    )
}


_OF_LOOPS = "gateway_loop_failures", "gateway_loop_failing"


class _Loops(Collector):
    """Counted where they run, which is below this room. One whose only trouble is a database that is away
    doesn't fail besides: all of them do, and the database is told."""

    database_away = False

    def collect(self) -> Iterator[Metric]:
        broke, keeps = (FIGURES[name].family() for name in _OF_LOOPS)
        failing = {loop.name for loop in loops.failing() if not (self.database_away and loop.shares_trouble)}
        for name in loops.running():
            broke.add_metric([name], loops.failures[name])
            keeps.add_metric([name], name in failing)
        yield from (broke, keeps)


_LOOPS = _Loops()
REGISTRY.register(_LOOPS)


@dataclass(slots=True)
class _Known:
    """What the database said last, and when."""

    at: float | None = None
    crowds: Sequence[Crowd] = ()
    circuits: Mapping[str, Circuit] = field(default_factory=dict)
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    causes: Sequence[str] = ()
    untold_since: datetime | None = None  # to the audit collector
    in_bucket: int = 0  # bytes


class Figures(Collector):
    def __init__(
        self,
        settings: Settings,
        store: Store,
        revision: Callable[[], str],
        refused: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._store = store
        self._data_dir = settings.data_dir
        self._reserve = settings.least_free
        self._revision = revision
        self._refused = refused
        self._peers = peers_of(settings)
        self._certificates = list(our_certificates(settings))
        self._bucket = settings.spool if isinstance(settings.spool, S3Spool) else None
        self._has_collector = settings.audit_log is not None
        self._known = _Known()
        self._ours: dict[str, datetime] = {}
        self.database_up: bool | None = None
        self._answered_in = 0.0
        self._disk: os.statvfs_result | None = None

    async def run(self) -> None:
        await Loop("figures", most=EVERY).run(self.collect_all, pause=EVERY)

    async def collect_all(self) -> None:
        await asyncio.to_thread(self._look_around)
        began = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                await self._store.ping()
                self._answered_in = time.monotonic() - began
                self._known = _Known(
                    time.monotonic(),
                    await self._store.crowds(),
                    {each.peer: each for each in await self._store.circuits()},
                    {each.peer: each for each in await self._store.pauses()},
                    await self._store.count_waiting(),
                    await self._store.standing_causes(),
                    await self._store.trail_waits_since() if self._has_collector else None,
                    await self._store.bytes_arrived() if self._bucket is not None else 0,
                )
        except (DatabaseError, OSError, TimeoutError):
            self.database_up = False
            self._answered_in = time.monotonic() - began
        else:
            self.database_up = True
        _LOOPS.database_away = not self.database_up

    def _look_around(self) -> None:
        for place, certificate in self._certificates:
            try:
                self._ours[place] = expiry_of(place, certificate)
            except Misconfigured:
                self._ours.pop(place, None)
        try:
            self._disk = os.statvfs(self._data_dir)
        except OSError:
            self._disk = None

    # -- telling it -----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        families = {name: figure.family() for name, figure in FIGURES.items() if name not in _OF_LOOPS}
        for name, labels, value in self._samples():
            families[name].add_metric(list(labels), value)
        yield from families.values()

    def _samples(self) -> Iterator[tuple[str, Sequence[str], float]]:
        yield "gateway_build_info", (__version__, self._revision()), 1
        yield "gateway_configuration_refused", (), bool(self._refused())
        yield from self._jobs()
        yield from self._of_peers()
        for place, expires in self._ours.items():
            yield "gateway_certificate_expiry_timestamp_seconds", ("ours", place), expires.timestamp()
        if self._disk is not None:
            yield "gateway_disk_free_bytes", (), self._disk.f_bavail * self._disk.f_frsize
            yield "gateway_disk_size_bytes", (), self._disk.f_blocks * self._disk.f_frsize
        yield "gateway_disk_reserve_bytes", (), self._reserve
        if self._bucket is not None:
            yield from self._of_bucket(self._bucket)
        if self.database_up is not None:
            yield "gateway_database_up", (), self.database_up
            yield "gateway_database_answer_seconds", (), self._answered_in
        if self._known.at is not None:
            yield "gateway_figures_age_seconds", (), time.monotonic() - self._known.at
        if self._has_collector and self._known.at is not None:
            since = self._known.untold_since
            age = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
            yield "gateway_audit_log_oldest_age_seconds", (), max(0.0, age)
        for cause in self._known.causes:
            yield "gateway_alerts_standing", (cause,), 1
        if self.database_up is False:  # of all that stands the only thing that it doesn't tell itself
            yield "gateway_alerts_standing", ("database",), 1

    def _of_bucket(self, bucket: S3Spool) -> Iterator[tuple[str, Sequence[str], float]]:
        yield "gateway_spool_most_bytes", (), bucket.most_bytes
        if self._known.at is not None:
            yield "gateway_spool_held_bytes", (), self._known.in_bucket
        for labels, number in sorted(calls.failures.items()):
            yield "gateway_spool_failures", labels, number
        for when, at in (("failure", calls.failed_at), ("success", calls.succeeded_at)):
            if at is not None:
                yield f"gateway_spool_last_{when}_timestamp_seconds", (), at

    def _jobs(self) -> Iterator[tuple[str, Sequence[str], float]]:
        now = datetime.now(UTC)
        for crowd in self._known.crowds:
            labels = crowd.department, crowd.application, crowd.state
            yield "gateway_jobs", labels, crowd.jobs
            age = max(0.0, (now - crowd.oldest).total_seconds())
            yield "gateway_jobs_oldest_age_seconds", labels, age

    def _of_peers(self) -> Iterator[tuple[str, Sequence[str], float]]:
        for peer in self._peers if self._known.at is not None else ():
            circuit = self._known.circuits.get(peer)
            quota = quota_beside(peer)
            now = state_of(circuit, self._known.pauses.get(peer))
            if now == "well" and quota is not None:
                now = state_of(self._known.circuits.get(quota), None)
            for state in STATES:
                yield "gateway_peer_state", (peer, state), state == now
            waiting = self._known.waiting
            yield "gateway_peer_jobs_waiting", (peer,), waiting.get(peer, 0) + waiting.get(quota or "", 0)
            if circuit is not None and circuit.succeeded_at is not None:
                yield "gateway_peer_last_success_timestamp_seconds", (peer,), circuit.succeeded_at.timestamp()
            if circuit is not None and circuit.certificate_expires is not None:
                expires = circuit.certificate_expires.timestamp()
                yield "gateway_certificate_expiry_timestamp_seconds", ("theirs", peer), expires
        for peer, octets in sorted(traffic.received.items()):
            yield "gateway_peer_received_bytes", (peer,), octets
        for peer, octets in sorted(traffic.sent.items()):
            yield "gateway_peer_sent_bytes", (peer,), octets


class _Besides(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from self._figures.collect()


def expose(figures: Figures) -> tuple[bytes, str]:
    """All of this process, as Prometheus reads it, and its content type."""
    return generate_latest(_Besides(figures)), CONTENT_TYPE_LATEST


def quota_beside(peer: str) -> str | None:
    """As circuits name it; vendors alone have one."""
    kind, _, name = peer.partition(".")
    return f"quotas.{name}" if kind == "adapters" else None


def state_of(circuit: Circuit | None, pause: Pause | None) -> str:
    if pause is not None:
        return "paused_by_gateway" if pause.by_itself else "paused"
    if circuit is None or not circuit.is_open:
        return "well"
    return circuit.kind or "away"


def peers_of(settings: Settings) -> list[str]:
    """All that are configured, as circuits name them."""
    named: dict[str, Iterable[str]] = {
        "archives": settings.archives,
        "adapters": settings.adapters,
        "destinations": settings.destinations,
        "sectra": settings.sectra.servers,
        "applications": settings.applications,
        "audit_log": [] if settings.audit_log is None else ["syslog"],
    }
    spool = [PEER] if isinstance(settings.spool, S3Spool) else []
    return [*(f"{kind}.{name}" for kind, names in named.items() for name in names), *spool]


def our_certificates(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Those we show, to whoever calls and whom we call."""
    for place, part in parts_of(settings):
        if isinstance(part, Tls | Trust) and part.certificate is not None:
            yield place, part.certificate
