"""Sparing everyone the wait for a peer that is away, or that refuses us: whoever finds out says so to all
replicas, and the jobs that need it wait without being tried.

closed ──(no connection; or another failure, and it isn't well when asked)──▶ open
   ▲                                                                           │ (one replica looks,
   └────────(it is well, or one job's call went through)───────────────────────┘  at growing pauses)

Peers are named as the configuration names them: `archives.vna`, `adapters.milvue`, `destinations.ris`,
`sectra.main`. A person may pause one, or an application (`applications.milvue-trauma`). A vendor that takes
no more studies for now (`quotas.milvue`) is still asked for results: one job tries when it said that it would
take some again, and the others after that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import structlog

from gateway.ailments import BUSY, Ailment, ailment_in, ailment_of, clock, storm_of
from gateway.calls import Calls
from gateway.checkups import Check, Checkups
from gateway.contract import Busy, Failure, NotLetIn, Retryable, Unreachable
from gateway.gate import Barred, worked_on
from gateway.http import Faltering, Unanswered
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.jobs.store.circuits import Circuit
from gateway.jobs.store.parked import Backlog
from gateway.jobs.store.pauses import Pause
from gateway.loops import Loop
from gateway.untold import Untold

log = structlog.get_logger(__name__)

_LOOK = 1.0
_SELDOM = 5.0
_FLUSH = 10.0
_STALE = 0.2
_STORM = 3  # failures in a row
_JOBS_IN_A_STORM = 2  # of several jobs: one alone may be the cause itself
_QUOTA = "quotas."
_ONE_BY_ONE = 60.0  # while the one that tries is on its way, before another does
_TAKEN_AGAIN = 60.0  # where a vendor doesn't say when
_TRIAL = 4  # a look may fail where a job wouldn't: at each so many, one job goes through
_TOLD_AT_ONCE = 4
_LATE = "Check the load of the server and the network between it and this machine."
_TRIED = "It is tried again and again by itself; nothing is lost."
_ONCE_RIGHT = "It goes on by itself once the credentials are right"


def quota_of(adapter: str) -> str:
    """What is left of it, as a peer that may be away."""
    return f"{_QUOTA}{adapter}"


@dataclass(frozen=True, slots=True)
class Peer:
    """`name`: as a sentence names it. `hold_after`: refused so often, it is paused. `asked`: also
    while nobody calls it. `whereabouts`: where it is, and who sees to it, in a sentence of its own."""

    name: str
    check: Check | None = None
    backlog: Sequence[Backlog] = ()
    hold_after: int | None = None
    asked: bool = False
    whereabouts: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; tests make it short. `silence`: of calls under way, after which their peer is asked. `again`:
    before one that nobody needs is asked a second time, and called away, and before a slide that couldn't be
    told is told."""

    first: float = 2.0
    most: float = 60.0
    answers_within: float = 10.0
    silence: float = 20.0
    again: float = 5.0


class Circuits:
    def __init__(self, store: Store, patience: Patience | None = None) -> None:
        self._store = store
        self._patience = patience or Patience()
        self._peers: Mapping[str, Peer] = {}
        self._tell: Callable[[Job], Awaitable[bool]] | None = None
        self._untold = Untold(self._patience.again)
        self._calls = Calls()
        self._me = uuid4().hex
        self._open: dict[str, Circuit] = {}
        self._troubled: set[str] = set()  # closed, with failures that a success makes forgotten
        self._pauses: dict[str, Pause] = {}
        self._refreshed = 0.0
        self._refreshing = asyncio.Lock()
        self._heard: dict[str, datetime] = {}
        self._flushed = 0.0
        self._checkups = Checkups(self._check_of, self._patience.answers_within)
        self._idle = 0.0
        self._sign_of: dict[str, float] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._tells = True
        self._looked = 0.0
        self._waited_for: list[str] = []

    def only_look(self) -> None:
        """For commands that change nothing: what they meet is told to nobody."""
        self._tells = False

    def know(
        self, peers: Mapping[str, Peer], tell: Callable[[Job], Awaitable[bool]], idle: float = 0.0
    ) -> None:
        """`tell`: says on a job's slide what it waits for, or that it goes on; whether it could. `idle`: who
        gave no sign for so many seconds is asked how it is; 0: nobody."""
        self._peers, self._tell, self._idle = peers, tell, idle

    # -- before and after a call ----------------------------------------------------------------------

    async def require(self, peer: str) -> None:
        job_id = worked_on()
        if not self._bars(peer, job_id):
            return
        # A person may have said a moment ago that this very job is to try.
        await self.refresh(_STALE if job_id is None else 0.0)
        if self._bars(peer, job_id):
            raise self._barred(peer)

    def calling(self, *peers: str) -> AbstractContextManager[None]:
        return self._calls.to(*peers)

    def bars(self, peer: str) -> bool:
        return self._bars(peer, None)

    def _bars(self, peer: str, job_id: UUID | None) -> bool:
        if peer in self._pauses:
            return True
        circuit = self._open.get(peer)
        return circuit is not None and (job_id is None or circuit.trial_job != job_id)

    def _barred(self, peer: str) -> Barred:
        barred = Barred(self.why(peer), self.advice(peer) or _TRIED)
        barred.blame(peer)
        return barred

    def advice(self, peer: str) -> str:
        """What whoever waits for it, or could help, is told to do; nothing, if it isn't barred."""
        pause, circuit = self._pauses.get(peer), self._open.get(peer)
        if pause is not None:
            return pause.advice
        return "" if circuit is None else circuit.advice or _TRIED

    def why(self, peer: str) -> str:
        """What a job waits for, as its slide says it."""
        pause = self._pauses.get(peer)
        if pause is not None and pause.by_itself:
            return f"the gateway has paused {self._name(peer)}: {pause.why}"
        if pause is not None:
            return f"{self._name(peer)} is paused since {clock(pause.since)} ({pause.why})"
        circuit = self._open.get(peer)
        if circuit is None:
            return f"{self._name(peer)} is waited for"
        return f"{self._name(peer)} {ailment_in(circuit).words} since {clock(circuit.since)}"

    def waiting(self, peer: str, *, begun: bool) -> str:
        """`why`, and how the analysis goes on from there."""
        pause = self._pauses.get(peer)
        does = "goes on" if begun else "starts"
        if pause is not None:
            return f"{self.why(peer)}; this analysis {does} once it is unpaused"
        return f"{self.why(peer)}; this analysis {does} by itself"

    def _name(self, peer: str) -> str:
        known = self._peers.get(peer)
        return peer if known is None else known.name

    async def met(self, failure: Failure, job_id: UUID | None = None, *, canary: bool = False) -> bool:
        """A `canary` finds out for all, and is no reason to pause anybody."""
        peer = failure.peer
        if peer is None or not self._tells or (isinstance(failure, Busy) and not peer.startswith(_QUOTA)):
            return False
        if isinstance(failure, Busy):
            await self._use_up(peer, failure, job_id)
            return True
        if self.bars(peer):
            return True
        if isinstance(failure, Unreachable):
            await self._trip(peer, ailment_of(failure), failure)
            return True
        if not isinstance(failure, Retryable | NotLetIn) or peer not in self._peers:
            return False
        health = await self._checkups.ask(peer)
        if not health.ok:
            found = health.failure or failure  # it may be worse by now than when the job met it
            refusals = 0 if canary else sum(ailment_of(each).refuses_us for each in (failure, found))
            await self._trip(peer, ailment_of(found), found, refusals=refusals)
            return True
        if not isinstance(failure, Unanswered | Faltering):
            return False  # it is about this one job
        failures, jobs_met = await self._store.count_failure(peer, job_id)
        self._troubled.add(peer)
        if failures < _STORM or jobs_met < _JOBS_IN_A_STORM:
            return False  # the job itself may be the cause: it has its own budget
        await self._trip(peer, storm_of(failure), failure, is_storm=True)
        return True

    async def _use_up(self, peer: str, failure: Busy, job_id: UUID | None) -> None:
        pause = _TAKEN_AGAIN if failure.after is None else max(failure.after, _LOOK)
        if await self._store.hold_off(peer, pause, job_id):
            await self.refresh()
        else:
            await self._trip(peer, BUSY, failure, pause=pause)

    async def heard(self, *peers: str, job_id: UUID | None = None) -> None:
        for peer in peers:
            circuit = self._open.get(peer)
            if peer.startswith(_QUOTA):  # what was on its way before it was used up says nothing
                if circuit is not None and circuit.trial_job == job_id:
                    await self._close(circuit)
                continue
            self._heard[peer] = datetime.now(UTC)
            self._sign_of[peer] = time.monotonic()
            if circuit is not None:
                await self._close(circuit)
            elif peer in self._troubled:
                self._troubled.discard(peer)
                await self._store.record_successes({peer: self._heard.pop(peer)})

    # -- opening and closing --------------------------------------------------------------------------

    async def _trip(
        self,
        peer: str,
        ailment: Ailment,
        failure: Failure,
        *,
        refusals: int = 0,
        is_storm: bool = False,
        pause: float | None = None,
    ) -> None:
        advice = self._advice_on(peer, ailment, failure)
        opened = await self._store.trip(
            peer,
            ailment.kind,
            f"{self._name(peer)} {ailment.words}",
            failure.message,
            advice,
            first=self._patience.first if pause is None else pause,
            most=self._patience.most if pause is None else pause,
            refused=refusals,
            manner=ailment.manner,
            is_storm=is_storm,
            told=self._with_whereabouts(peer, advice),
        )
        await self.refresh()
        if not opened:
            return
        tell = log.warning if ailment == BUSY else log.error
        tell(
            "a peer is away or refuses us; its jobs wait",
            peer=peer,
            state=ailment.words,
            error=failure.message,
            advice=advice,
        )
        await self._pause_itself(peer, refusals)
        self._do(self._park(peer))

    def _advice_on(self, peer: str, ailment: Ailment, failure: Failure) -> str:
        if not ailment.refuses_us:
            return failure.advice
        return f"{failure.advice} {_ONCE_RIGHT}{self._not_for_ever(peer)}.".strip()

    def _with_whereabouts(self, peer: str, advice: str) -> str:
        """For who is to mend it: doctors, on whose slides the advice alone stands, don't go there."""
        known = self._peers.get(peer)
        return advice if known is None else f"{advice} {known.whereabouts}".strip()

    def _not_for_ever(self, peer: str) -> str:
        known = self._peers.get(peer)
        if known is None or known.hold_after is None:
            return ""
        return f"; refused {known.hold_after} times it is paused, and then has to be unpaused"

    async def _close(self, circuit: Circuit) -> None:
        closed = await self._store.close_circuit(circuit.peer, circuit.number)
        await self.refresh()
        if closed:
            away = (datetime.now(UTC) - circuit.since).total_seconds()
            log.info("a peer is well again; its jobs go on", peer=circuit.peer, after=round(away))

    async def _pause_itself(self, peer: str, refusals: int) -> None:
        known = self._peers.get(peer)
        if known is None or known.hold_after is None or refusals < known.hold_after:
            return
        paused = await self._store.pause_itself(peer, self._name(peer), refusals)
        await self.refresh()
        if paused:
            log.error("a vendor that refuses our credentials is paused", peer=peer, times=refusals)
            self._do(self._park(peer))

    async def _park(self, peer: str) -> None:
        """Those that wait for their turn needn't be tried to learn that they wait."""
        known = self._peers.get(peer)
        if known is None or not self.bars(peer):
            return
        barred, pause = self._barred(peer), self._pauses.get(peer)
        why = barred.message
        words = self.waiting(peer, begun=False), self.waiting(peer, begun=True)
        by_itself = pause is not None and pause.by_itself
        for parked in (
            self._store.park(peer, known.backlog, *words, barred if by_itself else None),
            self._store.reword(peer, *words, barred),
        ):
            async for jobs in parked:
                log.info("jobs wait for a peer", peer=peer, why=why, jobs=[str(job.id) for job in jobs])
                await self._tell_all(jobs)
                if not self.bars(peer):
                    return

    async def _tell_unpaused(self, peer: str) -> None:
        circuit = self._open.get(peer)
        if circuit is not None and peer not in self._pauses:
            sentence = f"{self._name(peer)} {ailment_in(circuit).words}"
            told = self._with_whereabouts(peer, circuit.advice or "")
            await self._store.tell_unpaused(peer, sentence, told)
            await self._park(peer)

    async def _wake(self, peer: str) -> None:
        async for jobs in self._store.wake(peer):
            log.info("jobs go on: what they waited for is back", peer=peer, jobs=len(jobs))
            self._do(self._tell_all(jobs))

    async def _tell_all(self, jobs: Sequence[Job]) -> None:
        tell = self._tell
        if tell is None:
            return
        places = asyncio.Semaphore(_TOLD_AT_ONCE)

        async def tell_one(job: Job) -> None:
            async with places:
                if not await tell(job) and job.waits_for is not None:
                    self.tell_later(job.id)

        await asyncio.gather(*(tell_one(job) for job in jobs if job.slide_id is not None))

    def tell_later(self, job_id: UUID) -> None:
        """What a job waits for, which its slide couldn't be told now."""
        self._untold.add(job_id)

    async def _tell_late(self, job_ids: Sequence[UUID]) -> None:
        found = [await self._store.get(job_id) for job_id in job_ids]
        await self._tell_all([job for job in found if job is not None and job.waits_for is not None])

    # -- for ever -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """While jobs are worked on here."""
        loop: asyncio.Task[None] = asyncio.create_task(
            Loop("circuits", most=5).run(self._look_around, pause=_LOOK)
        )
        try:
            yield
        finally:
            doing = [loop, *self._beside, *self._checkups.under_way]
            for task in doing:
                task.cancel()
            await asyncio.wait(doing)

    async def _look_around(self) -> None:
        """Seldom while all is well: whatever changes is heard of at once."""
        for peer in self._calls.silent_for(self._patience.silence):
            if not self.bars(peer):
                self._do(self._doubt(peer))
        for peer in self._idle_peers():
            self._do(self._look_after(peer))
        if untold := self._untold.take():
            self._do(self._tell_late(untold))
        if self._open or self._waited_for or time.monotonic() - self._looked > _SELDOM:
            await self._look()

    async def _look(self) -> None:
        self._looked = time.monotonic()
        before = self._pauses
        await self.refresh()
        for peer in self._pauses.keys() - before.keys():
            self._do(self._park(peer))
        for peer in before.keys() - self._pauses.keys():
            if before[peer].by_itself:
                self._do(self._tell_unpaused(peer))
        for circuit in self._open.values():
            if circuit.due and circuit.peer not in self._pauses:
                self._do(self._probe(circuit))
        self._waited_for = await self._store.waited_for()
        for peer in self._waited_for:
            if not self.bars(peer):
                await self._wake(peer)
        if time.monotonic() - self._flushed > _FLUSH:
            self._flushed = time.monotonic()
            heard, self._heard = self._heard, {}
            await self._store.record_successes(heard)

    async def pause(self, peer: str, why: str, who: str) -> bool:
        """In force here when this returns; other replicas hear of it. Whether it wasn't paused yet."""
        paused = await self._store.pause(peer, why, who)
        await self._look()
        return paused

    async def unpause(self, peer: str, who: str) -> bool:
        unpaused = await self._store.unpause(peer, who)
        await self._look()
        return unpaused

    def hear(self, notice: str) -> None:
        """Another replica, or we, have found a peer away or back, or a person has paused one."""
        if notice.startswith("peer "):
            self._do(self._look())

    async def refresh(self, unless_within: float = 0.0) -> None:
        began = time.monotonic()
        async with self._refreshing:
            if self._refreshed > began - unless_within:
                return
            asked = time.monotonic()
            known, paused = await self._store.circuits(), await self._store.pauses()
            self._open = {each.peer: each for each in known if each.is_open}
            self._troubled |= {each.peer for each in known if each.failures and not each.is_open}
            self._pauses = {each.peer: each for each in paused}
            self._refreshed = asked

    async def _probe(self, circuit: Circuit) -> None:
        """One replica at a time: should it die of it, another looks a little later."""
        limit = self._patience.answers_within
        if not await self._store.take_probe(circuit.peer, circuit.number, self._me, limit + 5):
            return
        if circuit.kind == "busy":
            await self._let_one_try(circuit)
            return
        health = await self._checkups.ask(circuit.peer)
        if health.ok and not circuit.is_storm:
            await self._close(circuit)
            return
        found = ailment_in(circuit) if health.failure is None else ailment_of(health.failure)
        trial = circuit.is_storm or circuit.probes % _TRIAL == _TRIAL - 1
        later = await self._store.put_off(
            circuit.peer,
            circuit.number,
            self._me,
            most=self._patience.most,
            refused=found.refuses_us,
            trial=trial,
        )
        if later is None:
            return
        log.info("a peer isn't back yet", peer=circuit.peer, said=health.sentence, trial=str(later.trial_job))
        if health.failure is not None and found != ailment_in(circuit):
            await self._say_anew(circuit, found, health.failure)
        if circuit.is_storm and health.ok and later.trial_job is None:  # nobody is left to try it
            await self._close(circuit)
        elif found.refuses_us:
            await self._pause_itself(circuit.peer, later.refusals)

    async def _say_anew(self, circuit: Circuit, found: Ailment, failure: Failure) -> None:
        """It is still ill, but otherwise: who answered 503 doesn't even take connections any more."""
        peer = circuit.peer
        log.info("a peer is ill otherwise by now", peer=peer, state=found.words, error=failure.message)
        advice = self._advice_on(peer, found, failure)
        await self._store.say_anew(
            peer,
            circuit.number,
            found.kind,
            found.manner,
            f"{self._name(peer)} {found.words}",
            failure.message,
            advice,
            self._with_whereabouts(peer, advice),
        )
        await self.refresh()
        if found.kind != circuit.kind:
            self._do(self._park(peer))

    async def _doubt(self, peer: str) -> None:
        ended = self._calls.ended(peer)
        health = await self._checkups.ask(peer)
        if health.ok or self._calls.ended(peer) != ended:
            return
        silent = f"{self._name(peer)} has said nothing for {self._patience.silence:g} s: {health.sentence}"
        failure = health.failure or Unanswered(silent, _LATE)
        await self._trip(peer, ailment_of(failure), failure)

    def _idle_peers(self) -> Iterator[str]:
        """Each is named again after as long."""
        now = time.monotonic()
        for peer, known in self._peers.items():
            if known.asked and self._idle and now - self._sign_of.setdefault(peer, now) >= self._idle:
                self._sign_of[peer] = now
                if not self.bars(peer):
                    yield peer

    async def _look_after(self, peer: str) -> None:
        """Twice: one that is being started anew is no outage."""
        if (await self._checkups.ask(peer)).ok:
            return
        await asyncio.sleep(self._patience.again)
        health = await self._checkups.ask(peer)
        if health.ok or self.bars(peer):
            return
        failure = health.failure or Unanswered(health.sentence, _LATE)
        await self._trip(peer, ailment_of(failure), failure)

    async def _let_one_try(self, circuit: Circuit) -> None:
        later = await self._store.put_off(
            circuit.peer, circuit.number, self._me, most=_ONE_BY_ONE, refused=False, trial=True
        )
        if later is None:
            return
        log.info("a vendor may take studies again", peer=circuit.peer, trial=str(later.trial_job))
        if later.trial_job is None:  # nobody is left to try it
            await self._close(circuit)

    def _check_of(self, peer: str) -> Check | None:
        known = self._peers.get(peer)
        return None if known is None else known.check

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        async def do() -> None:
            try:
                await work
            except Exception as trouble:  # the next look does it again
                log.warning("seeing to a peer broke", exc_info=trouble)

        def end(task: asyncio.Task[None]) -> None:
            self._beside.discard(task)
            work.close()  # where we stopped before it had begun

        task = asyncio.create_task(do())
        self._beside.add(task)
        task.add_done_callback(end)
