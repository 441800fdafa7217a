"""The accepting side of DIMSE: pynetdicom's server, made to read whole pieces at once, to keep its limits
also amid a message, and to ask whom to let in.

Stock pynetdicom takes 4 KiB at a time and sleeps between its threads: a third of the speed of dcmtk. It also
begins two threads for whoever connects; here those alone have threads who are let in, and the lobby sees to
the rest.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from struct import pack
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from gateway.dicom.arrival import Arrival, Reply
from gateway.dicom.association import LARGEST_PDU
from gateway.dicom.classes import is_storage
from gateway.dicom.lobby import Lobby, Request, Room, Security
from gateway.dicom.peer import Limits
from gateway.dicom.provider import SpoolingProvider
from gateway.dicom.refusals import Refusals
from gateway.dicom.staging import Staging
from gateway.dicom.wire import Wire

_LARGEST_MESSAGE = 4 * LARGEST_PDU  # an association's request has its own size
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # of several that are offered, the first of these
# Besides storage: by class, the roles that whoever calls may have, where there is a choice.
SERVED: Mapping[str, Mapping[str, bool]] = {
    Verification: {},
    StorageCommitmentPushModel: {"scu_role": True, "scp_role": True},
}
MOST_ASSOCIATIONS = 50
_WINK = 0.01
_LEAST_RATE = 1024  # bytes a second, amid a message
_RESERVE = 5  # one seat in so many is for others than the address that has most
_UNKNOWN_TRANSACTION = 0x0110
_NOT_SUPPORTED = 0x03  # an abstract syntax, in PS3.8's numbers
_LEAVE_TAKING = 2.0
_ABORT = pack(">BBLBBBB", 7, 0, 4, 0, 0, 2, 6)  # by the provider: a parameter's value is invalid
_FOR_GOOD, _FOR_NOW, _BY_USER, _BY_PROVIDER, _LOCAL_LIMIT = 1, 2, 1, 3, 2  # why not, in PS3.8's numbers


class Refusal(IntEnum):
    """Why somebody isn't let in; the numbers of PS3.8."""

    CALLING = 3
    CALLED = 7


Admit = Callable[[Request], Refusal | None]
TakeFor = Callable[[Arrival, Request], Reply]
Report = Callable[[Dataset, Request], bool]  # whether somebody waits for it


class SwiftSocket(Wire):
    """Reads what is announced in one go, and waits for it instead of looking again and again. `begun`: what
    has been read before."""

    def __init__(self, association: Any, wire: socket.socket, begun: bytes) -> None:
        super().__init__(association, client_socket=wire)
        self._begun = bytearray(begun)

    @property
    def ready(self) -> bool:
        if self._begun and self._is_connected:
            return True
        self._wait = 0.0 if self.provider_queue.queue else _WINK
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _LARGEST_MESSAGE:
            raise OSError("a peer announces more than was agreed upon")
        if self._begun:
            begun, self._begun = self._begun[:nr_bytes], self._begun[nr_bytes:]
            return begun
        wire = cast(socket.socket, self.socket)
        until = time.monotonic() + (wire.gettimeout() or 0.0) + nr_bytes / _LEAST_RATE
        data = bytearray(nr_bytes)
        view = memoryview(data)
        got = 0
        while got < nr_bytes:
            count = wire.recv_into(view[got:])
            if not count:
                break
            if time.monotonic() > until:
                raise TimeoutError("a peer sends a message drop by drop")
            got += count
        view.release()
        del data[got:]
        return data


def _preference(transfer_syntax: str) -> int:
    """pynetdicom takes the first. Who offers several in one context needn't be able to compress, but can send
    what it holds in the plain ones; among others, its own order counts."""
    return PLAIN.index(transfer_syntax) if transfer_syntax in PLAIN else len(PLAIN)


class _Negotiator(ACSE):
    def _negotiate_as_acceptor(self) -> None:
        for proposed in cast(Any, self.requestor.primitive).presentation_context_definition_list:
            proposed.transfer_syntax = sorted(proposed.transfer_syntax, key=_preference)
        super()._negotiate_as_acceptor()

    def send_accept(self) -> None:
        """pynetdicom takes whatever class it doesn't know for one of storage, worklists among them."""
        accepted = self.assoc._accepted_cx
        for number, context in list(accepted.items()):
            if context.abstract_syntax not in SERVED and not is_storage(str(context.abstract_syntax)):
                context.result = _NOT_SUPPORTED
                self.assoc._rejected_cx.append(accepted.pop(number))
        super().send_accept()


class _Handler(RequestHandler):
    """Of a caller who is let in."""

    server: _Server

    def __init__(self, wire: socket.socket, peer: Any, server: _Server, asked: Request) -> None:
        self._asked = asked
        super().__init__(wire, peer, server)

    def _create_association(self) -> Any:
        association = super()._create_association()
        layer, wire = association.dul, cast(socket.socket, self.request)
        layer.socket, layer.event_queue = None, queue.Queue()
        wire.settimeout(association.network_timeout)
        association.set_socket(SwiftSocket(association, wire, self._asked.pdu))
        layer._run_loop_delay = 0.0  # the socket is what it waits for
        association.acse = _Negotiator(association)
        asked = replace(self._asked, pdu=b"")
        association.bind(evt.EVT_N_EVENT_REPORT, self.server.answer_report, [asked])
        provider = SpoolingProvider(
            association,
            staging=self.server.staging,
            take=lambda arrival: self.server.take(arrival, asked),
        )
        association.dimse = provider
        self.server.guests.append(_Guest(association, provider, asked.address, asked.vouchers))
        return association


@dataclass(frozen=True, slots=True)
class _Guest:
    association: Any
    provider: SpoolingProvider
    address: str
    vouchers: int

    @property
    def has_left(self) -> bool:
        association = self.association
        begun = association.ident is not None
        return begun and not association.is_alive() and not association.dul.is_alive()


class _Server(ThreadedAssociationServer):
    """Only who is admitted takes a seat, and one address never takes all of them."""

    request_queue_size = 128
    admit: Admit
    take: TakeFor
    report: Report
    staging: Staging
    seats: int
    security: Security | None

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.guests: list[_Guest] = []
        self.refusals = Refusals()

    def receive(self, wire: socket.socket, peer: Any, asked: Request) -> bytes | None:
        refusal = self.admit(asked)
        if refusal is not None:
            return _rejection(_FOR_GOOD, _BY_USER, int(refusal))
        if not _is_sound(asked.pdu):
            self.refusals.tell("refused an association: its request can't be read", asked.address)
            return _ABORT
        taken = Counter(guest.address for guest in self.guests if guest.association.is_alive())
        if taken.total() >= self.seats or taken[asked.address] >= self.seats - self.seats // _RESERVE:
            self.refusals.tell("refused an association: there are too many", asked.address)
            return _rejection(_FOR_NOW, _BY_PROVIDER, _LOCAL_LIMIT)
        wire.setblocking(True)
        try:
            _Handler(wire, peer, self, asked)
        except RuntimeError:  # no more threads
            self.guests.pop().provider.abandon()
            return _rejection(_FOR_NOW, _BY_PROVIDER, _LOCAL_LIMIT)
        return None

    def answer_report(self, event: Any, asked: Request) -> tuple[int, None]:
        awaited = self.report(event.event_information, asked)
        return (0x0000 if awaited else _UNKNOWN_TRANSACTION), None

    def service_actions(self) -> None:
        """Whoever broke off amid an instance leaves a piece of it. And whoever perhaps nobody vouches for
        any more goes; he may ask to be let in again."""
        vouchers = self.security.vouchers() if self.security is not None else 0
        for guest in self.guests:
            if guest.vouchers != vouchers and guest.association.is_established:
                self.refusals.tell("ended an association: others vouch for callers now", guest.address)
                guest.association.abort(block=False)
        for guest in [guest for guest in self.guests if guest.has_left]:
            guest.provider.abandon()
            self.guests.remove(guest)


def _is_sound(pdu: bytes) -> bool:
    """Over another, pynetdicom would wait for long."""
    try:
        read = A_ASSOCIATE_RQ()
        read.decode(pdu)
        read.to_primitive()
    except Exception:  # noqa: BLE001 - whatever its decoder is seen to raise
        return False
    return True


def _rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ."""
    return pack(">BBLBBBB", 3, 0, 4, 0, result, source, reason)


class StorageServer:
    """Listens from `start` to `stop`; what is given (`knows` is asked for an address) is called from other
    threads, and `knows` and `admit` from the one that all callers wait for."""

    def __init__(
        self,
        ae_title: str,
        staging: Staging,
        knows: Callable[[str], bool],
        admit: Admit,
        take: TakeFor,
        report: Report,
        *,
        limits: Limits = Limits(),  # noqa: B008
        most_associations: int = MOST_ASSOCIATIONS,
        room: Room = Room(),  # noqa: B008
        security: Security | None = None,
    ) -> None:
        self._staging = staging
        self._room = room
        self._security = security
        self._seats = most_associations
        self._knows = knows
        self._admit = admit
        self._take = take
        self._report = report
        self._entity = AE(ae_title)
        self._entity.acse_timeout = limits.accept
        self._entity.dimse_timeout = self._entity.network_timeout = limits.answer
        self._entity.maximum_pdu_size = LARGEST_PDU
        self._entity.maximum_associations = sys.maxsize  # we count ourselves
        for sop_class, roles in SERVED.items():
            self._entity.add_supported_context(sop_class, **cast(Any, roles))
        self._server: _Server | None = None
        self._lobby: Lobby | None = None

    def start(self, host: str, port: int) -> int:
        """The port; OSError if it can't be had."""
        self._staging.prepare()
        server = cast(
            _Server, self._entity.make_server((host, port), server_class=cast(Any, _Server), evt_handlers=[])
        )
        server.admit, server.take, server.report = self._admit, self._take, self._report
        server.staging, server.seats, server.security = self._staging, self._seats, self._security
        lobby = Lobby(
            cast(socket.socket, server.socket), self._knows, server.receive, self._room, self._security
        )
        self._thread = threading.Thread(
            target=lobby.run, args=(server.service_actions,), name="dimse lobby", daemon=True
        )
        self._thread.start()
        self._server, self._lobby = server, lobby
        return int(server.server_address[1])

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is None or self._lobby is None:
            return
        until = time.monotonic() + _LEAVE_TAKING  # for all of them together
        self._lobby.close()
        self._thread.join(_LEAVE_TAKING)
        server.server_close()
        for guest in server.guests:
            if guest.association.is_alive():
                guest.association.abort()
        for guest in server.guests:
            for thread in (guest.association, guest.association.dul):
                if thread.is_alive():
                    thread.join(max(0.0, until - time.monotonic()))
            guest.provider.abandon()
