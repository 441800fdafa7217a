"""Every query of the jobs room, behind one object.

database    the connection, the fenced write, the hash chain: what the others stand on
queue       what a worker does with jobs: claim, renew, move, keep
requests    what people and other systems ask for: create, join, cancel, resume, retry
recovery    what was held for a peer that is well again
proof       the proof of a job: instances and deliveries
grants      the rights of vendors that call back, and what they did with them
slides      which of our results stands on which slide
seals       the heads of all histories, in a chain of their own
reading     lists, events and counts, for those who look
upkeep      what becomes of jobs that ended long ago
"""

from __future__ import annotations

from gateway.jobs.store.database import (
    CHANNEL,
    PRESENCE,
    DatabaseError,
    DatabaseLost,
    Refused,
    Superseded,
)
from gateway.jobs.store.grants import Grants
from gateway.jobs.store.proof import Proof
from gateway.jobs.store.queue import Queue
from gateway.jobs.store.reading import Reading
from gateway.jobs.store.recovery import Recovering
from gateway.jobs.store.seals import Seals
from gateway.jobs.store.slides import Slides
from gateway.jobs.store.upkeep import Upkeep

__all__ = ["CHANNEL", "PRESENCE", "DatabaseError", "DatabaseLost", "Refused", "Store", "Superseded"]


class Store(Queue, Recovering, Proof, Slides, Grants, Seals, Reading, Upkeep):
    """The jobs in PostgreSQL."""
