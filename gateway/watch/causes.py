"""What has to be seen to, besides peers that are away: found standing again and again by whoever looks."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from gateway import loops
from gateway.jobs.store import Store
from gateway.jobs.store.alerts import Cause, Held, Stuck
from gateway.settings.certificates import expiry_of
from gateway.settings.sections import S3Spool, Settings
from gateway.settings.tree import Misconfigured
from gateway.watch.figures import our_certificates

_SOON = timedelta(days=14)
_NEARLY = 0.9
_AFTER_AN_OUTAGE = 90.0  # seconds in which loops find their feet again


class Source(Protocol):
    async def standing(self) -> Iterable[Cause]:
        """All that it finds standing now: what it no longer names is over a little later."""
        ...


class Troubles:
    """Jobs that need a person, deliveries that keep failing, certificates of peers, a bucket that is nearly
    full: of all replicas."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._console = settings.public_url and str(settings.public_url).rstrip("/")

    async def standing(self) -> list[Cause]:
        held, failing = await self._store.held_jobs(), await self._store.failing_deliveries()
        shown = {each.peer: each.certificate_expires for each in await self._store.circuits()}
        return [
            *_held(held, self._console),
            *_failing(failing),
            *_expiring(
                (peer, expires, "Have it renewed there.") for peer, expires in shown.items() if expires
            ),
            *await self._filling(),
        ]

    async def _filling(self) -> list[Cause]:
        spool = self._settings.spool
        if not isinstance(spool, S3Spool):
            return []
        held = await self._store.bytes_arrived()
        if held < _NEARLY * spool.most_bytes:
            return []
        return [
            Cause(
                "spool",
                f"the spool's bucket holds {held / 1e9:.1f} GB of the {spool.most_bytes / 1e9:.1f} GB that"
                " spool.most_bytes allows: beyond it no study is taken in, and nothing is lost",
                "See why jobs whose study was sent to us don't end, or raise spool.most_bytes.",
            )
        ]


class Machine:
    """The disk, our certificates and the loops of this process, and whether it refuses a changed
    configuration. `well_for`: seconds since the database was last away, whose absence breaks loops that
    nobody else has to see to. `refused`: why it does."""

    def __init__(
        self, settings: Settings, well_for: Callable[[], float], refused: Callable[[], Sequence[str]]
    ) -> None:
        self._data_dir = settings.data_dir
        self._reserve = settings.least_free
        self._certificates = list(our_certificates(settings))
        self._well_for = well_for
        self._refused = refused
        self._host = socket.gethostname()

    async def standing(self) -> list[Cause]:
        looked = await asyncio.to_thread(lambda: list(self._look()))
        return [*looked, *self._loops(), *self._configuration()]

    def _look(self) -> Iterator[Cause]:
        try:
            disk = os.statvfs(self._data_dir)
        except OSError:
            disk = None
        if disk is not None and (free := disk.f_bavail * disk.f_frsize) < self._reserve:
            yield Cause(
                f"disk.{self._host}",
                f"the disk of {self._data_dir} on {self._host} has {free / 1e9:.1f} GB left, less than"
                f" least_free ({self._reserve / 1e9:.1f} GB): no new work begins there, nothing is lost",
                "Free space on it, or have it enlarged; work goes on by itself.",
            )
        for place, path in self._certificates:
            yield from _expiring([(place, _expiry(place, path), "Put a renewed one in its place.")])

    def _loops(self) -> Iterator[Cause]:
        for loop in loops.failing() if self._well_for() > _AFTER_AN_OUTAGE else ():
            if loop.name != "alerts":  # it is told as the channel that fails
                yield Cause(
                    f"loops.{loop.name}.{self._host}",
                    f"the gateway on {self._host} fails again and again at {loop.name}",
                    f"Its log says why (loop={loop.name}); it goes on trying.",
                )

    def _configuration(self) -> Iterator[Cause]:
        if problems := self._refused():
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            yield Cause(
                f"configuration.{self._host}",
                f"a changed configuration is refused on {self._host}, and the one before stays in force:"
                f" {problems[0]}{more}",
                "All that is wrong is named by gateway check; once it is mended it is taken by itself.",
            )


def departments_of(settings: Settings) -> dict[str, list[str]]:
    """By peer and by application, whom its trouble concerns."""
    found: dict[str, set[str]] = defaultdict(set)
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            used = [f"{kind}.{application.adapter}" for kind in ("adapters", "quotas")]
            used += [f"applications.{name}", name]
            used += [f"archives.{archive}" for archive in application.archives]
            routed = {*application.deliver, *(name for rule in application.when for name in rule.deliver)}
            used += [f"destinations.{destination}" for destination in routed]
            used += [f"sectra.{server}" for server in settings.sectra.servers if "sectra" in routed]
            for each in used:
                found[each].add(department)
    return {name: sorted(departments) for name, departments in found.items()}


def _held(found: Sequence[Held], console: str | None) -> Iterator[Cause]:
    reasons = Counter(each.application for each in found)
    for each in found:
        jobs = f"{each.jobs} {each.department} {'job is' if each.jobs == 1 else 'jobs are'}"
        key = ".".join(filter(None, ("held", each.application, each.kind, each.reason)))
        yield Cause(
            key,
            f"{jobs} held at {each.application}: {each.message or 'a person has to decide'}",
            f"{each.advice} {_ways_on(each, reasons[each.application] == 1, console)}.".strip(),
            (each.department,),
            each.jobs,
        )


def _ways_on(held: Held, alone: bool, console: str | None) -> str:
    """As one types them: they resume no job that a person has to decide about first."""
    chosen = {"state": "held", "application": held.application}
    filters = " ".join(f"--{name} {value}" for name, value in chosen.items())
    ids = [str(each)[:8] for each in held.some] if held.jobs == len(held.some) else []
    if held.jobs == 1:
        told, page = f"gateway jobs show {ids[0]} tells more", f"/{held.some[0]}"
    else:
        names = "names them" if alone else "names them among others"
        told = f"gateway jobs list {filters} {names}, gateway jobs show ID tells more of each"
        page = f"?{urlencode(chosen)}"
    if console is not None:
        told = f"{told}, or {console}/jobs{page}"
    if held.kind in _ONE_BY_ONE and "resume the job" not in held.advice:
        return told
    resumed = " ".join(ids) or (f"{filters} --all" if alone else "ID")
    return f"{told}; once that is mended, gateway jobs resume {resumed}"


_ONE_BY_ONE = ("needs_human", "permanent", "")  # resumed as they are, they are held at once again


def _failing(failing: Sequence[Stuck]) -> Iterator[Cause]:
    by_destination: dict[str, list[Stuck]] = defaultdict(list)
    for stuck in failing:
        by_destination[stuck.destination].append(stuck)
    for destination, found in by_destination.items():
        jobs = sum(stuck.jobs for stuck in found)
        why = found[0].message or "its history says why"
        yield Cause(
            f"deliveries.{destination}",
            f"{jobs} {'result doesn’t' if jobs == 1 else 'results don’t'} get into {destination} ({why});"
            " it is tried again, nothing is lost",
            "gateway jobs list --state delivering names them, gateway jobs show ID says why.",
            tuple(sorted(stuck.department for stuck in found)),
            jobs,
        )


def _expiring(shown: Iterable[tuple[str, datetime | None, str]]) -> Iterator[Cause]:
    now = datetime.now(UTC)
    for place, expires, advice in shown:
        if expires is not None and expires - now < _SOON:
            days = (expires - now).days
            left = "a day" if days == 1 else f"{days} days"
            when = f"expires in {left}" if days >= 0 else "has expired"
            yield Cause(f"certificates.{place}", f"the certificate of {place} {when} ({expires:%F})", advice)


def _expiry(place: str, path: Path) -> datetime | None:
    try:
        return expiry_of(place, path)
    except Misconfigured:
        return None  # those from before stay in force, and the log says so
