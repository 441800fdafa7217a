"""What those who watch keep and ask."""

from __future__ import annotations

from gateway.jobs.store.alerts import AlertQueue
from gateway.jobs.store.canaries import Canaries
from gateway.jobs.store.crowds import Crowds
from gateway.jobs.store.flags import Flags
from gateway.jobs.store.reconciling import Reconciling
from gateway.jobs.store.replicas import Replicas
from gateway.jobs.store.rounds import Rounds
from gateway.jobs.store.tallies import Tallies
from gateway.jobs.store.trail import Trail


class Watching(AlertQueue, Crowds, Flags, Rounds, Reconciling, Canaries, Tallies, Trail, Replicas):
    pass
