"""Storage commitment: an archive that offers it says, sooner or later and on whichever association it likes,
which of our results it keeps for good."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.dicom.arrival import Watch

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_TOLD, _HEARD = "commitment", "commitment-heard"
_UID = re.compile("[0-9.]{1,64}")
_AT_ONCE = 80  # instances


@dataclass(slots=True)
class Report:
    """By SOP instance UID; a failure with its reason."""

    committed: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)


class Transaction:
    def __init__(self) -> None:
        self.told = threading.Event()
        self.report = Report()

    def wait(self, seconds: float, watch: Watch) -> Report | None:
        until = time.monotonic() + seconds
        while not self.told.wait(0.1):
            if watch.over or time.monotonic() > until:
                return None
        return self.report


class Commitments:
    """The transactions that wait for their report. Of several replicas under one AE title the archive may
    tell any: who doesn't know a transaction passes its report on to the others, by `tell` from any thread."""

    def __init__(self, tell: Callable[[Sequence[str]], None] | None = None, patience: float = 5.0) -> None:
        self._open: dict[str, Transaction] = {}
        self._tell = tell
        self._patience = patience
        self._passed_on: dict[str, threading.Event] = {}
        self._pieces: dict[str, dict[int, Report]] = {}

    @contextmanager
    def expect(self, transaction_uid: str) -> Iterator[Transaction]:
        self._open[transaction_uid] = transaction = Transaction()
        try:
            yield transaction
        finally:
            del self._open[transaction_uid]
            self._pieces.pop(transaction_uid, None)

    def report(self, information: Dataset) -> bool:
        """Whether somebody waits for it."""
        uid = str(information.get("TransactionUID", ""))
        told = Report(
            {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()},
            _reasons(information),
        )
        return self._settle(uid, told) or self._pass_on(uid, told)

    def _settle(self, uid: str, told: Report) -> bool:
        transaction = self._open.get(uid)
        if transaction is None:
            return False
        transaction.report = told
        transaction.told.set()
        return True

    # -- among replicas -------------------------------------------------------------------------------

    def _pass_on(self, uid: str, told: Report) -> bool:
        """Whether another replica has said in time that it waited for that."""
        if self._tell is None or not _UID.fullmatch(uid) or uid in self._passed_on:
            return False
        self._passed_on[uid] = heard = threading.Event()
        try:
            self._tell(_notices(uid, told))
            return heard.wait(self._patience)
        finally:
            del self._passed_on[uid]

    def hear(self, notice: str) -> None:
        """What a replica has told all of them, we among them."""
        kind, _, rest = notice.partition(" ")
        if kind == _HEARD and rest in self._passed_on:
            self._passed_on[rest].set()
        if kind != _TOLD:
            return
        uid, number, many, committed, failed = json.loads(rest)
        if uid not in self._open:
            return
        pieces = self._pieces.setdefault(uid, {})
        pieces[number] = Report(set(committed), failed)
        if len(pieces) < many:
            return
        whole = Report()
        for piece in pieces.values():
            whole.committed |= piece.committed
            whole.failed |= piece.failed
        if self._settle(uid, whole) and self._tell is not None:
            self._tell([f"{_HEARD} {uid}"])


def _notices(uid: str, told: Report) -> list[str]:
    """In pieces that a notification can hold."""
    each = [(one, None) for one in sorted(told.committed)] + sorted(told.failed.items())
    parts = [each[at : at + _AT_ONCE] for at in range(0, len(each), _AT_ONCE)] or [[]]
    return [
        f"{_TOLD} "
        + json.dumps(
            [
                *(uid, number, len(parts), [one for one, reason in part if reason is None]),
                {one: reason for one, reason in part if reason is not None},
            ]
        )
        for number, part in enumerate(parts)
    ]


def _reasons(information: Dataset) -> dict[str, int]:
    return {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0x0110)
        for item in information.get("FailedSOPSequence") or ()
    }
