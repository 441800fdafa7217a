"""Who asks for what is under way already. He is told at once that the job is his too, and has it when Sectra
has let in the token that he brought: whose token it refuses touches no living job.

However long Sectra is away, it is asked again, by this replica or another; if the job ends first, he has one
of his own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.records import Job, Joining, NewJob, Origin
from gateway.jobs.states import FINAL
from gateway.jobs.store import DatabaseError, Store
from gateway.loops import Loop
from gateway.sectra.servers import SectraServers

log = structlog.get_logger(__name__)

_EVERY = 5.0
_ROOM = 16
_FULL = 0.5
_ASKED_WITHIN = 15.0  # less than whoever sees to it has it for
_LONGEST_PAUSE = 60.0


class Stranger(NeedsHuman):
    """Whoever it is, he isn't Sectra's."""


class Admission:
    def __init__(self, store: Store, servers: SectraServers, status: SlideStatus) -> None:
        self._store = store
        self._servers = servers
        self._status = status
        self._at_work: set[asyncio.Task[None]] = set()
        self._put_off = asyncio.Event()

    async def run(self) -> None:
        """Sees to all whom nobody sees to, until cancelled."""
        try:
            await Loop("admission", most=_EVERY).run(self._look)
        finally:
            for task in self._at_work:
                task.cancel()
            if self._at_work:
                await asyncio.wait(self._at_work)

    async def require(self, call: NewJob | Job) -> None:
        """Only who has a token of Sectra's acts on a job that there is, or on what stands on a slide."""
        assert call.server is not None and call.callback_url is not None and call.slide_id is not None
        place = call.server, call.callback_url, call.application, call.callback_token
        if not await self._servers.client(*place, own=False).lets_in(call.slide_id):
            raise Stranger(
                "Sectra doesn't let in the token that this call brought, for this slide",
                "Ask again from Sectra.",
            )

    async def let_in(self, who: Joining) -> Job | None:
        """The job that is his now. None: he has withdrawn, or another replica sees to him. After a failure he
        is seen to again, unless it is he who was refused."""
        try:
            job = await self._let_in(who)
        except (Stranger, Permanent):
            await self._store.drop_joining(who)
            raise
        except asyncio.CancelledError:
            await self._put(who, 0.0)
            raise
        except Exception:
            await self._put(who, min(2.0 ** (min(who.tries, 10) - 1), _LONGEST_PAUSE))
            raise
        if job is not None and who.asked is not None:
            log.info("job joined", job=str(job.id), application=job.application, origin=who.asked.origin)
        return job

    async def _let_in(self, who: Joining) -> Job | None:
        while True:
            job = await self._store.get(who.job)
            if who.asked is None:
                raise Retryable("an invocation was stored with a key that isn't among secret_keys here")
            let_in = by_stranger = False
            if job is not None and job.state not in FINAL:
                try:
                    async with asyncio.timeout(_ASKED_WITHIN):
                        await self.require(who.asked)
                        by_stranger = not job.callback_accepted and await self._is_strangers(job)
                except TimeoutError:
                    raise Retryable("Sectra doesn't say whether it lets an invocation in") from None
                let_in = True
            outcome = await self._store.join(who, let_in=let_in, by_stranger=by_stranger)
            if not isinstance(outcome, Joining):
                return outcome
            who = outcome

    async def _is_strangers(self, job: Job) -> bool:
        try:
            await self.require(job)
        except Stranger:
            return True
        except Failure:
            pass  # nobody can tell
        return False

    async def _put(self, who: Joining, seconds: float) -> None:
        with suppress(DatabaseError):  # then it is seen to when he has been taken for long enough
            await self._store.put_off_joining(who, seconds)
        self._put_off.set()

    # -- those whom nobody sees to ----------------------------------------------------------------------

    async def _look(self) -> None:
        self._put_off.clear()
        pause = await self._store.joining_due_in()
        room = _ROOM - len(self._at_work)
        if pause is not None and pause <= 0:
            for who in await self._store.take_joining(room) if room else ():
                task = asyncio.create_task(self._see_to(who))
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)
            pause = _FULL
        with suppress(TimeoutError):
            async with asyncio.timeout(_EVERY if pause is None else min(pause, _EVERY)):
                await self._put_off.wait()

    async def _see_to(self, who: Joining) -> None:
        try:
            job = await self.let_in(who)
            if job is not None and who.asked is not None and who.asked.origin is Origin.SECTRA:
                await self._status.acknowledge(job)
        except Failure as trouble:
            log.warning("an invocation couldn't be seen to", error=str(trouble))
        except DatabaseError as trouble:
            log.warning("an invocation is left for later", error=type(trouble).__name__)
        except Exception as bug:
            log.error("an invocation broke", exc_info=bug)
