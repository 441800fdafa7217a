"""pynetdicom's message layer as we use it: instances go to the disk as they come, and what is sent waits in
the file that it comes from."""

from __future__ import annotations

import queue
import time
from struct import pack
from typing import Any

import structlog
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from gateway.dicom.arrival import (
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    Arrival,
    Origin,
    Refused,
    Reply,
    Take,
    Watch,
)
from gateway.dicom.staging import Staging

log = structlog.get_logger(__name__)

_NO_DATASET = 0x0101
_MOST_QUEUED = 16
_LARGEST_MESSAGE = 4 * 2**20  # a report on some 35,000 instances; an instance goes to the disk
_TICK = 0.5
_HUNG_UP = ("Sta1", "Sta13")  # of the state machine in PS3.8: no connection, or about to close
_NONSENSE = "Evt19"  # that it was met with; the association is aborted


class SpoolingProvider(DIMSEServiceProvider):
    """pynetdicom's message layer, but a C-STORE's dataset goes to the disk as it comes, and is answered from
    the thread that read it: handing it to another costs milliseconds an instance."""

    def __init__(
        self,
        association: Any,
        *,
        staging: Staging | None = None,
        take: Take | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(association)
        self._staging = staging
        self._take = take
        self._watch = watch
        self._arrival: Arrival | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Whatever comes, the thread that reads goes on: without it nobody would take leave of the peer."""
        if self._watch is not None:
            self._watch.sign()
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._receive(context_id, value)
        except Exception as error:  # noqa: BLE001 - whatever pynetdicom's decoder is seen to raise
            address = self.assoc.remote["address"]
            log.warning(
                "broke off an association: what the peer says can't be read",
                address=address,
                error=type(error).__name__,
            )
            self.abandon()
            self.message = None
            self.dul.event_queue.put(_NONSENSE)

    def _receive(self, context_id: int, value: bytes) -> None:
        control = value[0]
        if control & 1:
            self.abandon()  # nobody may begin anew amid an instance: it will never be whole
        if self._arrival is None or control & 1:
            self._pass_on(context_id, value)
            if control & 2 and isinstance(self.message, C_STORE_RQ) and self._take is not None:
                self._arrival = self._begin(context_id, self.message.command_set)
            return
        self._arrival.write(memoryview(value)[1:])
        if control & 2:
            self._end(context_id)

    def get_msg(self, block: bool = False) -> Any:
        """An exchange may be long as long as something is heard of it; the sign may come by another way. From
        whom has hung up nothing more comes."""
        if not block or self._watch is None:
            return super().get_msg(block)
        self._watch.sign()
        while True:
            gone = self.dul.state_machine.current_state in _HUNG_UP
            try:
                return self.msg_queue.get(timeout=_TICK)
            except queue.Empty:
                silence = time.monotonic() - self._watch.last_sign
                if gone or self._watch.over or silence > (self.dimse_timeout or silence):
                    return None, None

    def abandon(self) -> None:
        """The peer is gone: what had come of an instance is of no use."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.abandon()

    def _pass_on(self, context_id: int, value: bytes) -> None:
        piece = P_DATA()
        piece.presentation_data_value_list.append((context_id, value))
        super().receive_primitive(piece)
        message = self.message
        held = () if message is None else (message.encoded_command_set, message.data_set)
        if sum(each.getbuffer().nbytes for each in held if each is not None) > _LARGEST_MESSAGE:
            raise ValueError("a message that doesn't end")

    def _begin(self, context_id: int, command: Any) -> Arrival | None:
        context = self.assoc._accepted_cx.get(context_id)
        if command.CommandDataSetType == _NO_DATASET or context is None:
            return None
        assert self._staging is not None
        origin = Origin(
            command.get("MoveOriginatorApplicationEntityTitle"), command.get("MoveOriginatorMessageID")
        )
        return Arrival(
            self._staging,
            str(command.AffectedSOPClassUID),
            str(command.AffectedSOPInstanceUID),
            str(context.transfer_syntax[0]),
            origin,
        )

    def _end(self, context_id: int) -> None:
        assert self._arrival is not None and self._take is not None and self.message is not None
        arrival, self._arrival = self._arrival, None
        command: Any = self.message.command_set
        self.message = None
        try:
            reply = self._take(arrival)
        except Refused as refused:
            reply = refused.reply
        except OSError as error:
            log.error("an instance can't be given its place", error=error.strerror or str(error))
            reply = Reply(OUT_OF_RESOURCES, "no room for it, or what keeps it is broken or away")
        except Exception:  # a bug of ours; the association needn't die of it
            log.exception("an instance could not be given its place")
            reply = Reply(PROCESSING_FAILURE, "an error in the gateway itself")
        finally:
            arrival.abandon()  # nothing, if it was given a place
        answer = P_DATA()
        answer.presentation_data_value_list.append((context_id, b"\3" + _answer(command, reply)))
        self.dul.send_pdu(answer)


class PacedQueue(queue.Queue[Any]):
    """What waits to be sent: a few pieces, not the whole instance."""

    def __init__(self, layer: Any, watch: Watch) -> None:
        super().__init__()
        self._layer = layer
        self._watch = watch

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        while isinstance(item, P_DATA) and self.qsize() >= _MOST_QUEUED:
            connected = self._layer.socket is not None and self._layer.socket._is_connected
            if self._watch.over or not connected or not self._layer.is_alive():
                return
            time.sleep(0.0005)
        super().put(item, block, timeout)


def _answer(command: Any, reply: Reply) -> bytes:
    """A C-STORE-RSP, written by hand: pydicom takes a millisecond for it."""
    sop_class, sop_instance = str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID)
    elements = [
        (0x0002, sop_class.encode("ascii"), b"\0"),
        (0x0100, pack("<H", 0x8001), b""),
        (0x0120, pack("<H", command.MessageID), b""),
        (0x0800, pack("<H", _NO_DATASET), b""),
        (0x0900, pack("<H", reply.status), b""),
    ]
    if reply.comment:
        elements.append((0x0902, reply.comment.encode("ascii", "replace")[:64], b" "))
    elements.append((0x1000, sop_instance.encode("ascii"), b"\0"))
    body = b""
    for number, value, filler in elements:
        value += filler * (len(value) % 2)
        body += pack("<HHL", 0, number, len(value)) + value
    return pack("<HHLL", 0, 0, 4, len(body)) + body
