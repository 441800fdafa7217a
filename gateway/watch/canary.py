"""Canaries: a study of nobody goes the whole way to a vendor and back every so many minutes, as a job of its
own that no list, count, slide, archive or destination sees. So it is known whether the vendor works before a
patient needs it.

For a vendor that works on slides in Sectra there is no slide that isn't a patient's: it is only asked whether
it is there. What comes back is proof that the way is open, and not that a finding is right.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from gateway.archives.canary import fresh_study
from gateway.contract import Failure, Health
from gateway.jobs.records import CANARY, NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.canaries import CanaryState
from gateway.loops import Loop
from gateway.settings.sections import Settings
from gateway.watch import metrics

log = structlog.get_logger(__name__)

_LOOK = 5.0
_SELDOM = 3600.0  # where none are sent, and some may have been
_PATIENCE = 1800.0  # for one that is rarely sent
_SHORTEST = 30.0
_IN_A_ROW = 2  # failures that are an alarm: one may be chance


class CanaryWatch:
    """`checks`: of each adapter, whether its vendor is there; `on_slides`: those that get no study."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        checks: Mapping[str, Callable[[], Awaitable[Health]]],
        on_slides: Callable[[str], bool],
    ) -> None:
        self._every = {
            name: adapter.canary.every
            for name, adapter in settings.adapters.items()
            if adapter.canary is not None
        }
        self._store = store
        self._checks = checks
        self._on_slides = on_slides

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = min(_LOOK, *self._every.values()) if self._every else _SELDOM
        await Loop("canaries").run(self.look, pause=pause)

    async def look(self) -> None:
        paused = {pause.peer for pause in await self._store.pauses()}
        states = await self._store.canaries()
        for adapter in self._every:
            state = states.get(adapter)
            if state is not None and state.job_id is not None:
                await self._follow(state)
            elif f"adapters.{adapter}" in paused:
                continue
            elif state is not None and state.pending and not self._on_slides(adapter):
                await self._send(adapter, state.began_at)  # whoever began it may have died of it
            else:
                await self._begin(adapter)
        for adapter, state in (await self._store.canaries()).items():
            if adapter in self._every:
                await self._tell(state)
            else:
                await self._forget(state)

    async def _begin(self, adapter: str) -> None:
        whole_way = not self._on_slides(adapter)
        began = await self._store.begin_canary(adapter, self._every[adapter], whole_way=whole_way)
        if began is None:
            return
        if whole_way:
            await self._send(adapter, began)
        else:
            await self._ask(adapter)

    async def _send(self, adapter: str, began: datetime) -> None:
        """What was made already is taken over: a vendor has one canary at a time, whoever asks for it."""
        new = NewJob(
            "",
            f"{CANARY}{adapter}",
            adapter,
            Origin.REST,
            study_instance_uid=fresh_study(),
            canary=True,
        )
        job, fresh = await self._store.create(new)
        if not fresh and job.created_at < began:  # it was given up, and whoever did that died before its end
            await self._give_up(job.id)
        elif not await self._store.follow_canary(adapter, began, job.id) and fresh:
            await self._give_up(job.id)  # another had sent it, and it is back

    async def _give_up(self, job_id: UUID) -> None:
        with suppress(Refused):  # it has ended
            await self._store.cancel(job_id, "gateway")

    async def _ask(self, adapter: str) -> None:
        began = time.monotonic()
        try:
            health = await self._checks[adapter]()
            why = None if health.ok else health.sentence
        except Failure as failure:
            why = failure.message
        await self._store.end_canary(adapter, None, seconds=time.monotonic() - began, why=why)

    async def _follow(self, state: CanaryState) -> None:
        assert state.job_id is not None
        job = await self._store.glance(state.job_id)
        within = max(_SHORTEST, min(self._every[state.adapter], _PATIENCE))
        if job is None:
            why: str | None = "its job is gone"
        elif job.state == State.DONE:
            seconds = (job.updated_at - job.created_at).total_seconds()
            await self._store.end_canary(state.adapter, job.id, seconds=seconds)
            return
        elif job.state in (State.FAILED, State.CANCELLED, State.HELD):
            why = job.error_message or f"its job was {job.state.value}"
        elif datetime.now(UTC) - job.created_at > timedelta(seconds=within):
            why = ": ".join(filter(None, (f"nothing came back within {within:g} s", job.error_message)))
        else:
            return
        if await self._store.end_canary(state.adapter, state.job_id, why=why):
            log.warning("a canary didn't come back", adapter=state.adapter, reason=why)
        await self._give_up(state.job_id)

    async def _forget(self, state: CanaryState) -> None:
        """None are sent to it any more."""
        if state.job_id is not None:
            await self._give_up(state.job_id)
        await self._store.clear_alert(f"canary.{state.adapter}")
        await self._store.forget_canary(state.adapter)

    async def _tell(self, state: CanaryState) -> None:
        if state.ok is not None:
            metrics.canary_ok.labels(state.adapter).set(state.ok)
        if state.seconds is not None and state.succeeded_at is not None:
            metrics.canary_took.labels(state.adapter).set(state.seconds)
            metrics.canary_last.labels(state.adapter).set(state.succeeded_at.timestamp())
        cause = f"canary.{state.adapter}"
        if state.failures >= _IN_A_ROW:
            sentence = f"test studies don't come back from {state.adapter} ({state.why})"
            advice = (
                f"See whether the vendor of adapters.{state.adapter} works: studies of patients wait too."
            )
            await self._store.raise_alert(cause, sentence, advice)
        elif state.ok:
            await self._store.clear_alert(cause)
