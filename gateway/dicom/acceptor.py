"""The accepting side of DIMSE: pynetdicom's server, made to read whole pieces at once, to keep its limits
also amid a message, and to ask whom to let in.

Stock pynetdicom takes 4 KiB at a time and sleeps between its threads: a third of the speed of dcmtk.
"""

from __future__ import annotations

import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from socketserver import BaseServer
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from gateway.dicom.arrival import Arrival, Reply, SpoolingProvider
from gateway.dicom.association import LARGEST_PDU, Limits
from gateway.dicom.staging import Staging

_LARGEST_MESSAGE = 4 * LARGEST_PDU  # an association's request has its own size
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_WINK = 0.01
_UNKNOWN_TRANSACTION = 0x0110
_LEAVE_TAKING = 2.0
_FOR_GOOD, _FOR_NOW, _BY_USER, _BY_PROVIDER, _LOCAL_LIMIT = 1, 2, 1, 3, 2  # why not, in PS3.8's numbers


class Refusal(IntEnum):
    """Why somebody isn't let in; the numbers of PS3.8."""

    CALLING = 3
    CALLED = 7


Admit = Callable[[str, str, str], Refusal | None]  # calling and called AE title, address
TakeFor = Callable[[Arrival, str, str], Reply]  # with the calling and the called AE title
Report = Callable[[Dataset], bool]  # whether somebody waits for it


class SwiftSocket(AssociationSocket):
    """Reads what is announced in one go, and waits for it instead of looking again and again."""

    @property
    def ready(self) -> bool:
        if self.socket is None or not self._is_connected:
            return False
        wait = 0.0 if self.provider_queue.queue else _WINK
        try:
            return bool(select.select([self.socket], [], [], wait)[0])
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _LARGEST_MESSAGE:
            raise OSError("a peer announces more than was agreed upon")
        data = bytearray(nr_bytes)
        view = memoryview(data)
        got = 0
        while got < nr_bytes:
            count = cast(Any, self.socket).recv_into(view[got:])
            if not count:
                break
            got += count
        view.release()
        del data[got:]
        return data


def _preference(transfer_syntax: str) -> int:
    """pynetdicom takes the first. Who offers several in one context needn't be able to compress, but can send
    what it holds in the plain ones; among others, its own order counts."""
    return _PLAIN.index(transfer_syntax) if transfer_syntax in _PLAIN else len(_PLAIN)


class _Doorkeeper(ACSE):
    """Asks whom to let in before anything is negotiated."""

    def __init__(self, association: Any, server: _Server) -> None:
        super().__init__(association)
        self._server = server

    def _negotiate_as_acceptor(self) -> None:
        asked = cast(Any, self.requestor.primitive)
        refusal = self._server.admit(asked.calling_ae_title, asked.called_ae_title, self.requestor.address)
        if refusal is not None:
            rejection = _FOR_GOOD, _BY_USER, int(refusal)
        elif not self._server.seat(self.assoc):
            rejection = _FOR_NOW, _BY_PROVIDER, _LOCAL_LIMIT
        else:
            for proposed in asked.presentation_context_definition_list:
                proposed.transfer_syntax = sorted(proposed.transfer_syntax, key=_preference)
            super()._negotiate_as_acceptor()
            return
        self.send_reject(*rejection)
        evt.trigger(self.assoc, evt.EVT_REJECTED, {})
        self.assoc.kill()


class _Handler(RequestHandler):
    server: _Server

    def handle(self) -> None:
        if self.server.knows(self.client_address[0]):
            super().handle()
        else:
            self.server.shutdown_request(self.request)

    def _create_association(self) -> Any:
        association = super()._create_association()
        layer = association.dul
        layer.socket, layer.event_queue = None, queue.Queue()
        cast(Any, self.request).settimeout(association.network_timeout)
        association.set_socket(SwiftSocket(association, client_socket=cast(Any, self.request)))
        layer._run_loop_delay = 0.0  # the socket is what it waits for
        association.acse = _Doorkeeper(association, self.server)

        def take(arrival: Arrival) -> Reply:
            asked = cast(Any, association.requestor.primitive)
            return self.server.take(arrival, asked.calling_ae_title, asked.called_ae_title)

        provider = SpoolingProvider(association, staging=self.server.staging, take=take)
        association.dimse = provider
        self.server.receive(association, provider)
        return association


class _Server(ThreadedAssociationServer):
    """Who has connected and says nothing keeps nobody else out: only who is admitted takes a seat."""

    request_queue_size = 128
    knows: Callable[[str], bool]
    admit: Admit
    take: TakeFor
    staging: Staging
    seats: int

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.guests: list[tuple[Any, SpoolingProvider]] = []
        self._seated: set[Any] = set()
        self._lock = threading.Lock()

    def receive(self, association: Any, provider: SpoolingProvider) -> None:
        with self._lock:
            self.guests.append((association, provider))
            waiting = [guest for guest, _ in self.guests if guest not in self._seated]
        for guest in waiting[: -self.seats]:
            with suppress(OSError, AttributeError):  # gone by itself
                guest.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    def seat(self, association: Any) -> bool:
        with self._lock:
            if sum(guest.is_alive() for guest in self._seated) >= self.seats:
                return False
            self._seated.add(association)
            return True

    def service_actions(self) -> None:
        """Whoever broke off amid an instance leaves a piece of it."""
        super().service_actions()
        for guest in list(self.guests):
            association, provider = guest
            if (
                association.ident is not None
                and not association.is_alive()
                and not association.dul.is_alive()
            ):
                provider.abandon()
                with self._lock:
                    self.guests.remove(guest)
                    self._seated.discard(association)


class StorageServer:
    """Listens from `start` to `stop`; what is given (`knows` is asked for an address) is called from other
    threads."""

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
        most_associations: int = 50,
    ) -> None:
        self._staging = staging
        self._seats = most_associations
        self._knows = knows
        self._admit = admit
        self._take = take
        self._report = report
        self._entity = AE(ae_title)
        self._entity.acse_timeout = limits.accept
        self._entity.dimse_timeout = self._entity.network_timeout = limits.answer
        self._entity.maximum_pdu_size = LARGEST_PDU
        self._entity.maximum_associations = sys.maxsize  # it counts who merely connected
        self._entity.add_supported_context(Verification)
        self._entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._server: _Server | None = None

    def start(self, host: str, port: int) -> int:
        """The port; OSError if it can't be had."""
        self._staging.prepare()
        handlers: Sequence[Any] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        server = cast(
            _Server,
            self._entity.make_server(
                (host, port),
                evt_handlers=list(handlers),
                server_class=cast(Any, _Server),
                request_handler=_Handler,
            ),
        )
        server.knows, server.admit, server.take = self._knows, self._admit, self._take
        server.staging, server.seats = self._staging, self._seats
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.2,), name="dimse server", daemon=True).start()
        self._server = server
        return int(server.server_address[1])

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        BaseServer.shutdown(server)
        server.server_close()
        for association, _ in server.guests:
            if association.is_alive():
                association.abort()
        until = time.monotonic() + _LEAVE_TAKING  # for all of them together
        for association, provider in server.guests:
            for thread in (association, association.dul):
                if thread.is_alive():
                    thread.join(max(0.0, until - time.monotonic()))
            provider.abandon()

    def _on_report(self, event: Any) -> tuple[int, None]:
        return (0x0000 if self._report(event.event_information) else _UNKNOWN_TRANSACTION), None
