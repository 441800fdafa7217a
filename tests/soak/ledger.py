"""What was asked of the gateway, what it acknowledged, and what was done to it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.soak.patients import Patient
from tests.soak.plan import Fault, Work


@dataclass
class Asked:
    work: Work
    patient: Patient
    tries: int = 0
    acknowledged: float | None = None
    took: float = 0.0  # until it was, of the try that succeeded
    job: str | None = None
    cancelled: float | None = None  # acknowledged
    modified: bool = False
    trouble: str = ""


@dataclass
class Ledger:
    asked: dict[int, Asked] = field(default_factory=dict)
    disturbances: list[tuple[float, float, Fault]] = field(default_factory=list)
    running: list[Fault] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # what was said to a caller whom we let down

    @contextmanager
    def disturbing(self, fault: Fault) -> Iterator[None]:
        began = time.time()
        self.running.append(fault)
        try:
            yield
        finally:
            self.running.remove(fault)
            self.disturbances.append((began, time.time(), fault))

    def running_on(self, *targets: str) -> bool:
        return any(fault.target.startswith(targets) for fault in self.running)

    def was_disturbed(self, begin: float, end: float, *targets: str) -> bool:
        """Whether a replica, the database or the disk was amid a fault in that time."""
        return self.running_on(*targets) or any(
            fault.target.startswith(targets) and began <= end and begin <= ended
            for began, ended, fault in self.disturbances
        )
