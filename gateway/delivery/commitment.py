"""Storage commitment: an archive that offers it says, sooner or later and on whichever association it likes,
which of our results it keeps for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.dicom.arrival import Watch

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


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
    """The transactions that wait for their report."""

    def __init__(self) -> None:
        self._open: dict[str, Transaction] = {}

    @contextmanager
    def expect(self, transaction_uid: str) -> Iterator[Transaction]:
        self._open[transaction_uid] = transaction = Transaction()
        try:
            yield transaction
        finally:
            del self._open[transaction_uid]

    def report(self, information: Dataset) -> bool:
        """Whether somebody waits for it."""
        transaction = self._open.get(str(information.get("TransactionUID", "")))
        if transaction is None:
            return False
        transaction.report = Report(
            {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()},
            _reasons(information),
        )
        transaction.told.set()
        return True


def _reasons(information: Dataset) -> dict[str, int]:
    return {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0x0110)
        for item in information.get("FailedSOPSequence") or ()
    }
