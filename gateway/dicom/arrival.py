"""An instance that comes in by C-STORE goes to the disk fragment by fragment: it is never whole in memory,
and never decoded. It lies in a staging folder until somebody has found the place where it belongs, so that
nobody sees a half-written one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack

import structlog

from gateway.contract import Header, Permanent
from gateway.dicom.part10 import NotDicom
from gateway.dicom.staging import Gauge, Staging
from gateway.dicom.web import require_uid
from gateway.dicom.whole import CutOff, WholeCheck

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
NOT_UNDERSTOOD = 0xC000
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110

log = structlog.get_logger(__name__)

IMPLEMENTATION = "1.2.826.0.1.3680043.10.1570.1"


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
            self._gauge = Gauge(staging.require_room)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.write(memoryview(file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid)))
        except OSError as error:
            self._lose(error)

    def write(self, fragment: memoryview) -> None:
        if self._descriptor is None:
            return  # what is still to come of a lost instance is read and forgotten
        try:
            self._gauge.count(len(fragment))
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


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information of PS3.10."""
    meta = pack("<HH2sHL2s", 2, 1, b"OB", 0, 2, b"\0\1")
    for number, uid in (
        (2, sop_class_uid),
        (3, sop_instance_uid),
        (0x10, transfer_syntax_uid),
        (0x12, IMPLEMENTATION),
    ):
        value = uid.encode("ascii")
        value += b"\0" * (len(value) % 2)
        meta += pack("<HH2sH", 2, number, b"UI", len(value)) + value
    return bytes(128) + b"DICM" + pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta
