"""Every query of the jobs room, behind one object.

database    the connections, the hash chain: what the others stand on
lines       the few connections for what every step asks
fenced      a worker's write, with the event that tells of it, in one statement
ferry       those who want to commit at once, together
queue       what a worker does with jobs: look, take, renew, move, keep
requests    what people and other systems ask for: create, join, cancel, resume, retry
batches     the same done to all jobs that match a filter
clock       what becomes due when the database's clock is put back
circuits    which peers are away or refuse us
pauses      which are paused
parked      the jobs that wait for one
alerts      what somebody has to hear of, once for all replicas
watching    for those who watch: flags (alerts), rounds (what one replica does for all), reconciling, trail
            (what an audit collector is to hear), replicas (the gateway's own processes)
arrivals    what was sent to us and lies in a bucket
pulls       how many studies were fetched from each archive lately
uploads     how much of the line each process has for a vendor's uploads
joining     who joins a job, until he is let in
recovery    what was held for a peer that is well again
restoring   what isn't known any more once a backup was restored
proof       the proof of a job: instances and deliveries
grants      the rights of vendors that call back, and what they did with them
rivals      the tokens of several calls on one vendor for one job: the first that writes counts
slides      which of our results stands on which slide
sequels     what a vendor finished of a job that was done already
issuing     what stands for whom at a vendor that may not know
disclosing  which jobs were about a patient, and what was sent for them
seals       the heads of all histories, in a chain of their own
revisions   which configuration was in force, and since when
acts        the audit, for those who look
reading     lists, events and counts, for those who look
crowds      the living jobs by the number, and peers' certificates
visited     visits to the console that were ended
overview    what is broken for many, what is under way, how long it took: never all that ever ended
shadows     what a vendor that is tried made of the studies of the one in use
upkeep      what becomes of jobs that ended long ago
trouble     why PostgreSQL can't be worked with
"""

from __future__ import annotations

from gateway.jobs.store.acts import Acts
from gateway.jobs.store.arrivals import Arrivals
from gateway.jobs.store.batches import Batches
from gateway.jobs.store.circuits import Circuits
from gateway.jobs.store.clock import Clock
from gateway.jobs.store.database import (
    CHANNEL,
    PRESENCE,
    DatabaseError,
    DatabaseLost,
    Refused,
    Superseded,
)
from gateway.jobs.store.disclosing import Disclosing
from gateway.jobs.store.grants import Grants
from gateway.jobs.store.joining import Joins
from gateway.jobs.store.overview import Overview
from gateway.jobs.store.parked import Parked
from gateway.jobs.store.pauses import Pauses
from gateway.jobs.store.proof import Proof
from gateway.jobs.store.pulls import Pulls
from gateway.jobs.store.queue import Queue
from gateway.jobs.store.reading import Reading
from gateway.jobs.store.recovery import Recovering
from gateway.jobs.store.restoring import Restoring
from gateway.jobs.store.revisions import Revisions
from gateway.jobs.store.seals import Seals
from gateway.jobs.store.sequels import Sequels
from gateway.jobs.store.shadows import Shadows
from gateway.jobs.store.slides import Slides
from gateway.jobs.store.upkeep import Upkeep
from gateway.jobs.store.uploads import Uploads
from gateway.jobs.store.visited import Visited
from gateway.jobs.store.watching import Watching

__all__ = ["CHANNEL", "PRESENCE", "DatabaseError", "DatabaseLost", "Refused", "Store", "Superseded"]


class Store(
    Queue,
    Recovering,
    Restoring,
    Joins,
    Batches,
    Clock,
    Circuits,
    Pauses,
    Parked,
    Watching,
    Arrivals,
    Pulls,
    Uploads,
    Proof,
    Slides,
    Shadows,
    Grants,
    Sequels,
    Disclosing,
    Seals,
    Acts,
    Revisions,
    Reading,
    Visited,
    Overview,
    Upkeep,
):
    """The jobs in PostgreSQL."""
