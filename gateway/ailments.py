"""What kind of trouble a peer has, and how one says it after its name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.contract import Failure, NotLetIn, Unreachable, Untrusted
from gateway.http import Unanswered
from gateway.jobs.store.circuits import Circuit

_WORDS = {
    "away": "is not reachable",
    "silent": "doesn't answer",
    "failing": "doesn't work as it should",
    "refused": "refuses our credentials",
    "untrusted": "can't be trusted",
    "busy": "takes no more studies for now (429: its quota is used up)",
}


@dataclass(frozen=True, slots=True)
class Ailment:
    """`manner`: where more is known than its kind tells, as "answers 503"."""

    kind: str
    manner: str = ""

    @property
    def words(self) -> str:
        return self.manner or _WORDS[self.kind]

    @property
    def refuses_us(self) -> bool:
        return self.kind == "refused"


BUSY = Ailment("busy")


def ailment_of(failure: Failure) -> Ailment:
    if isinstance(failure, Unreachable):
        return Ailment("away")
    if isinstance(failure, Untrusted):
        return Ailment("untrusted")
    if isinstance(failure, NotLetIn):
        return Ailment("refused")
    if isinstance(failure, Unanswered) and not failure.manner:
        return Ailment("silent")
    return Ailment("failing", failure.manner)


def storm_of(failure: Failure) -> Ailment:
    """Of one that says it is well when it is asked."""
    manner = failure.manner or ailment_of(failure).words
    return Ailment("failing", f"says that it is well, but {manner} again and again")


def ailment_in(circuit: Circuit) -> Ailment:
    kind = circuit.kind or "away"
    return Ailment(kind, (circuit.manner or "") if kind == "failing" else "")


def clock(since: datetime) -> str:
    """In the server's local time; with the day, once it was another."""
    at = since.astimezone()
    return f"{at:%H:%M}" if at.date() == datetime.now().astimezone().date() else f"{at:%Y-%m-%d %H:%M}"
