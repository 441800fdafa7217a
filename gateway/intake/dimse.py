"""Our storage service: what archives send on our request, studies that are sent to us for an application, and
archives' reports on storage commitment. Others than the configured peers are refused, and each of them may do
what it is there for, and no more."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from gateway.archives.awaited import Awaited
from gateway.delivery.commitment import Commitments
from gateway.dicom.acceptor import MOST_ASSOCIATIONS, Refusal, StorageServer
from gateway.dicom.arrival import NOT_AUTHORISED, Arrival, Reply
from gateway.dicom.lobby import Request, Room, Security
from gateway.dicom.peer import Limits
from gateway.dicom.refusals import Refusals
from gateway.intake.incoming import Taking
from gateway.intake.neighbours import Neighbours
from gateway.intake.returned import Returned
from gateway.settings.certificates import Subjects, serving
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


log = structlog.get_logger(__name__)

_NOT_WAITED_FOR = "nobody here waits for this study"


class DimseDoor:
    """`awaited.staging` must lie on the file system of data_dir."""

    def __init__(
        self,
        settings: Settings,
        awaited: Awaited,
        incoming: Taking,
        commitments: Commitments,
        returned: Returned | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008
        most_associations: int = MOST_ASSOCIATIONS,
        room: Room = Room(),  # noqa: B008
    ) -> None:
        self._awaited = awaited
        self._incoming = incoming
        self._returned = returned
        self._applications = _called(settings)
        require_distinct(settings, awaited.ae_title)
        self._commitments = commitments
        self._refusals = Refusals()
        self._neighbours = Neighbours(settings, returned.senders if returned else ())
        self._started = False
        self._server = StorageServer(
            awaited.ae_title,
            awaited.staging,
            self._live_at,
            self._admit,
            self._take,
            self._report,
            limits=limits,
            most_associations=most_associations,
            security=_security(settings),
            room=room,
        )

    def adopt(self, settings: Settings, returned: Returned) -> None:
        """Applications, peers and vendors in force from now on, for associations under way too."""
        before, now = self._neighbours, Neighbours(settings, returned.senders)
        if self._started:
            now.start()
        self._applications, self._neighbours, self._returned = _called(settings), now, returned
        before.stop()

    def _live_at(self, address: str) -> bool:
        return self._neighbours.live_at(address)

    def start(self, host: str, port: int) -> int:
        self._started = True
        self._neighbours.start()
        port = self._server.start(host, port)
        log.info("storage service listens", ae_title=self._awaited.ae_title, host=host, port=port)
        return port

    def stop(self) -> None:
        self._server.stop()
        self._neighbours.stop()

    def _admit(self, asked: Request) -> Refusal | None:
        if asked.called != self._awaited.ae_title and asked.called not in self._applications:
            self._refusals.tell(
                "refused an association: no AE title of ours is called", asked.address, called=asked.called
            )
            return Refusal.CALLED
        if not self._neighbours.know(asked.calling, asked.address):
            self._refusals.tell(
                "refused an association: no known peer calls", asked.address, calling=asked.calling
            )
            return Refusal.CALLING
        return None

    def _take(self, arrival: Arrival, asked: Request) -> Reply:
        application = self._applications.get(asked.called)
        header = arrival.finish()
        rights = self._neighbours.rights_of(asked.calling, asked.address)
        if application is not None:
            if "send" not in rights:
                return self._beyond(asked, "it may not send studies", "this AE title may not send studies")
            self._incoming.keep(application, header, arrival.path)
            return Reply()
        reply = None
        is_result = "return" in rights and self._returned is not None
        # A vendor's result may be of a study that is just being fetched from an archive. Some nodes are
        # vendor and archive in one: then the sender names our request, or no job waits for a result.
        if is_result and not ("deliver" in rights and self._awaited.is_named(arrival.origin)):
            assert self._returned is not None
            reply = self._returned.take(asked.calling, header, arrival.path)
            if reply.status != NOT_AUTHORISED:
                return reply
        if "deliver" in rights:
            if self._awaited.place(arrival, header):
                return Reply()
            what = "refused an instance that nobody waits for"
            self._refusals.tell(what, asked.address, calling=asked.calling)
        elif reply is None:
            return self._beyond(
                asked, "it may only send to an application", "nobody here waits for this study"
            )
        return reply or Reply(NOT_AUTHORISED, "nobody here waits for this study")

    def _report(self, information: Dataset, asked: Request) -> bool:
        if "deliver" not in self._neighbours.rights_of(asked.calling, asked.address):
            self._beyond(asked, "it is no archive that commits itself", "")
            return False
        return self._commitments.report(information)

    def _beyond(self, asked: Request, why: str, told: str) -> Reply:
        what = f"refused what a peer may not do: {why}"
        self._refusals.tell(what, asked.address, calling=asked.calling, called=asked.called)
        return Reply(NOT_AUTHORISED, told)


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


def _security(settings: Settings) -> Security | None:
    tls = settings.dimse.tls if settings.dimse else None
    if tls is None:
        return None
    return Security(serving("dimse.tls", tls, ssl.CERT_REQUIRED), Subjects(tls.subjects).have)


def _called(settings: Settings) -> dict[str, str]:
    return {
        application.ae_title: name
        for name, application in settings.applications.items()
        if application.ae_title is not None
    }


def require_distinct(settings: Settings, ours: str) -> None:
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
