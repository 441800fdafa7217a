"""An instance that comes in by C-STORE goes to the disk fragment by fragment: it is never whole in memory,
and never decoded. It lies in a staging folder until somebody has found the place where it belongs, so that
nobody sees a half-written one."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Any

import structlog
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from gateway.contract import Header, Permanent
from gateway.dicom.part10 import NotDicom
from gateway.dicom.staging import Staging
from gateway.dicom.web import require_uid
from gateway.dicom.whole import CutOff, WholeCheck

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
NOT_UNDERSTOOD = 0xC000
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110

log = structlog.get_logger(__name__)

_IMPLEMENTATION = "1.2.826.0.1.3680043.10.1570.1"
_NO_DATASET = 0x0101
_MOST_QUEUED = 16
_TICK = 0.5
_HUNG_UP = ("Sta1", "Sta13")  # of the state machine in PS3.8: no connection, or about to close


@dataclass(frozen=True, slots=True)
class Reply:
    """The status that the sender is told, and why (no patient's data in it)."""

    status: int = SUCCESS
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which C-MOVE the sender says that an instance belongs to; archives needn't say it."""

    ae_title: str | None = None
    message_id: int | None = None


class Refused(Exception):
    """An instance that isn't taken."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.comment)
        self.reply = reply


class Arrival:
    """One instance on its way to the disk."""

    def __init__(
        self,
        staging: Staging,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        origin: Origin,
    ) -> None:
        self.sop_instance_uid = sop_instance_uid
        self.origin = origin
        self.path = staging.fresh()
        self._trouble: OSError | NotDicom | None = None
        self._check = WholeCheck()
        self._descriptor: int | None = None
        try:
            staging.require_room()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.write(memoryview(file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid)))
        except OSError as error:
            self._lose(error)

    def write(self, fragment: memoryview) -> None:
        if self._descriptor is None:
            return  # what is still to come of a lost instance is read and forgotten
        try:
            self._check.feed(fragment)
            while fragment:
                fragment = fragment[os.write(self._descriptor, fragment) :]
        except (OSError, NotDicom) as error:
            self._lose(error)

    def finish(self) -> Header:
        """Which instance it is by its own words; Refused if it can't be kept."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if isinstance(self._trouble, OSError):
            log.error("an instance can't be written to the spool", error=self._trouble.strerror)
            raise Refused(Reply(OUT_OF_RESOURCES, "the disk is full or broken"))
        try:
            if self._trouble is not None:
                raise self._trouble
            header = self._check.finish()
            require_uid(header.study_instance_uid)
            require_uid(header.sop_instance_uid)
        except CutOff as error:
            raise Refused(Reply(NOT_UNDERSTOOD, "the instance is cut off")) from error
        except (NotDicom, Permanent) as error:
            raise Refused(Reply(NOT_UNDERSTOOD, "the instance doesn't say what it is")) from error
        if header.sop_instance_uid != self.sop_instance_uid:
            raise Refused(Reply(MISMATCH, "the instance is another than announced"))
        return header

    def abandon(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.path.unlink(missing_ok=True)

    def _lose(self, error: OSError | NotDicom) -> None:
        self._trouble = error
        self.abandon()


Take = Callable[[Arrival], Reply]


class Watch:
    """How long an exchange may last, and when something was last heard of it; from another thread it can be
    stopped."""

    def __init__(self, total: float) -> None:
        self.deadline = time.monotonic() + total
        self.last_sign = time.monotonic()
        self.stopped = False

    def sign(self) -> None:
        self.last_sign = time.monotonic()

    @property
    def over(self) -> bool:
        return self.stopped or time.monotonic() > self.deadline


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
        if self._watch is not None:
            self._watch.sign()
        for context_id, value in primitive.presentation_data_value_list:
            control = value[0]
            if control & 1:
                self.abandon()  # nobody may begin anew amid an instance: it will never be whole
            if self._arrival is None or control & 1:
                self._pass_on(context_id, value)
                if control & 2 and isinstance(self.message, C_STORE_RQ) and self._take is not None:
                    self._arrival = self._begin(context_id, self.message.command_set)
                continue
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
            log.error("an instance can't be given its place", error=error.strerror)
            reply = Reply(OUT_OF_RESOURCES, "the disk is full or broken")
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


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information of PS3.10."""
    meta = pack("<HH2sHL2s", 2, 1, b"OB", 0, 2, b"\0\1")
    for number, uid in (
        (2, sop_class_uid),
        (3, sop_instance_uid),
        (0x10, transfer_syntax_uid),
        (0x12, _IMPLEMENTATION),
    ):
        value = uid.encode("ascii")
        value += b"\0" * (len(value) % 2)
        meta += pack("<HH2sH", 2, number, b"UI", len(value)) + value
    return bytes(128) + b"DICM" + pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta


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
