"""Our storage service: what archives send on our request, studies that are sent to us for an application, and
archives' reports on storage commitment. Others than the configured peers are refused."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from gateway.archives.awaited import Awaited
from gateway.delivery.commitment import Commitments
from gateway.dicom.acceptor import Refusal, StorageServer
from gateway.dicom.arrival import NOT_AUTHORISED, Arrival, Reply
from gateway.dicom.association import Limits
from gateway.intake.incoming import Incoming
from gateway.intake.returned import Returned
from gateway.settings.sections import DimseArchive, Settings
from gateway.settings.tree import Misconfigured

log = structlog.get_logger(__name__)

_NAMES_HOLD = 60.0


class DimseDoor:
    """`awaited.staging` must lie on the file system of data_dir."""

    def __init__(
        self,
        settings: Settings,
        awaited: Awaited,
        incoming: Incoming,
        commitments: Commitments,
        returned: Returned | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008
        most_associations: int = 50,
    ) -> None:
        self._awaited = awaited
        self._incoming = incoming
        self._returned = returned
        self._applications = {
            application.ae_title: name
            for name, application in settings.applications.items()
            if application.ae_title is not None
        }
        self._hosts: dict[str, list[str]] = defaultdict(list)
        _require_distinct(settings, awaited.ae_title)
        for archive in settings.archives.values():
            if isinstance(archive, DimseArchive):
                self._hosts[archive.ae_title].append(archive.host)
        for peer in settings.dimse.peers if settings.dimse else ():
            self._hosts[peer.ae_title].append(peer.host)
        for sender in returned.senders if returned else ():
            self._hosts[sender.ae_title].append(sender.host)
        self._addresses: dict[str, tuple[float, frozenset[str]]] = {}
        self._server = StorageServer(
            awaited.ae_title,
            awaited.staging,
            self._knows,
            self._admit,
            self._take,
            commitments.report,
            limits=limits,
            most_associations=most_associations,
        )

    def start(self, host: str, port: int) -> int:
        port = self._server.start(host, port)
        log.info("storage service listens", ae_title=self._awaited.ae_title, host=host, port=port)
        return port

    def stop(self) -> None:
        self._server.stop()

    def _knows(self, address: str) -> bool:
        known = any(address in self._addresses_of(host) for hosts in self._hosts.values() for host in hosts)
        if not known:
            log.warning("dropped a connection: no known peer has its address", address=address)
        return known

    def _admit(self, calling: str, called: str, address: str) -> Refusal | None:
        calling, called = calling.strip(), called.strip()
        if called != self._awaited.ae_title and called not in self._applications:
            log.warning(
                "refused an association: no AE title of ours is called", called=called, address=address
            )
            return Refusal.CALLED
        if not any(address in self._addresses_of(host) for host in self._hosts.get(calling, ())):
            log.warning("refused an association: no known peer calls", calling=calling, address=address)
            return Refusal.CALLING
        return None

    def _addresses_of(self, host: str) -> frozenset[str]:
        until, known = self._addresses.get(host, (0.0, frozenset()))
        if time.monotonic() < until:
            return known
        try:
            known = frozenset(str(address[0]) for *_, address in socket.getaddrinfo(host, None))
        except OSError:
            log.warning("a peer's host has no address", host=host)
        self._addresses[host] = time.monotonic() + _NAMES_HOLD, known
        return known

    def _take(self, arrival: Arrival, calling: str, called: str) -> Reply:
        application = self._applications.get(called.strip())
        header = arrival.finish()
        if application is not None:
            self._incoming.keep(application, header, arrival.path)
            return Reply()
        reply = None
        is_result = self._returned is not None and self._returned.is_from(calling.strip())
        # A vendor's result may be of a study that is just being fetched from an archive. Some nodes are
        # vendor and archive in one: then the sender names our request, or no job waits for a result.
        if is_result and not self._awaited.is_named(arrival.origin):
            assert self._returned is not None
            reply = self._returned.take(calling.strip(), header, arrival.path)
            if reply.status != NOT_AUTHORISED:
                return reply
        if self._awaited.place(arrival, header):
            return Reply()
        log.warning("refused an instance that nobody waits for")
        return reply or Reply(NOT_AUTHORISED, "nobody here waits for this study")


@asynccontextmanager
async def storing(door: DimseDoor, host: str, port: int) -> AsyncIterator[int]:
    """The storage service at work; yields its port."""
    try:
        port = await asyncio.to_thread(door.start, host, port)
    except OSError as error:
        raise Misconfigured([f"dimse: can't listen on {host}, port {port}: {error.strerror}"]) from None
    try:
        yield port
    finally:
        await asyncio.to_thread(door.stop)


def _require_distinct(settings: Settings, ours: str) -> None:
    """The AE title that is called tells what a study is sent for."""
    taken = {ours: "dimse.ae_title"}
    problems = []
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            place = f"departments.{department}.applications.{name}.ae_title"
            if application.ae_title in taken:
                problems.append(f"{place}: {application.ae_title} is taken by {taken[application.ae_title]}")
            elif application.ae_title is not None:
                taken[application.ae_title] = place
    if problems:
        raise Misconfigured(problems)
