"""What somebody has to hear of goes out once, whichever replica tells it, and so does the all-clear. The log
always gets a line; the channels say who else hears. Should whoever tells it die between telling and noting,
it is told a second time, and no more.

`sources` say what stands, again and again; a peer's circuit begins and ends its alert by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import structlog

from gateway.ailments import clock
from gateway.contract import Failure
from gateway.jobs.store import Store
from gateway.jobs.store.alerts import LOG, Alert
from gateway.loops import Loop
from gateway.watch.causes import Source
from gateway.watch.channels import Channels, Message, how_long, name_telling

log = structlog.get_logger(__name__)

_LOOK = 2.0
_SEE = 5.0
_UNSEEN = 20.0  # seconds after which what nobody finds standing any more is over
_AT_ONCE = 8  # one whose channel hangs delays no other
_TELLING = 60.0  # seconds for which nobody else tells it
_COLLECTOR = "audit_log.syslog"
_FIRST, _MOST = 5.0, 300.0  # after a channel that failed


class Alerts:
    def __init__(
        self,
        store: Store,
        channels: Channels,
        sources: Sequence[Source] = (),
        departments: Mapping[str, Sequence[str]] | None = None,
        *,
        group: float = 0.0,
        remind: float | None = None,
    ) -> None:
        """`departments`: whom a peer's absence concerns."""
        self._store = store
        self._channels = channels
        self._sources = [*sources, channels]
        self._departments = departments or {}
        self._group, self._remind = group, remind
        self._kept: Mapping[str, int] = {}  # jobs, by the cause that keeps them
        self._seen: float | None = None
        self._seeing_since: float | None = None

    async def run(self) -> None:
        await Loop("alerts", first=_FIRST, most=_FIRST).run(self.look, pause=_LOOK)

    async def look(self) -> None:
        """Raises what a channel that doesn't work said: it is seen as a loop that keeps failing."""
        await self._see()
        hearers = list(self._channels.hearers.values())
        untold = await self._store.take_untold(_TELLING, self._group, self._remind, hearers)
        try:
            brokens = await self._tell_all(untold)
        except BaseException:  # ended amid it, as when a changed configuration is taken up
            for alert in untold:
                await self._store.put_off_telling(alert, 0.0)
            raise
        for broken in brokens:
            if broken is not None:
                raise broken

    async def _tell_all(self, untold: Sequence[Alert]) -> list[Failure | None]:
        waiting = await self._store.waiting_by_department() if untold else {}
        places = asyncio.Semaphore(_AT_ONCE)

        async def tell(alert: Alert) -> Failure | None:
            async with places:
                return await self._tell(alert, waiting.get(alert.cause, {}))

        return await asyncio.gather(*map(tell, untold))

    async def _see(self) -> None:
        now = time.monotonic()
        if self._seen is not None and now - self._seen < _SEE:
            return
        # Who couldn't look for a while, nor could the others: what they had seen isn't over for that.
        if self._seen is None or now - self._seen > _UNSEEN:
            self._seeing_since = now
        kept: dict[str, int] = {}
        for source in self._sources:
            causes = list(await source.standing())
            await self._store.see(causes)
            kept |= {cause.key: cause.jobs for cause in causes}
        self._kept = kept
        self._seen = now
        if self._seeing_since is not None and now - self._seeing_since > _UNSEEN:
            await self._store.clear_unseen(_UNSEEN)

    def _concerned(self, cause: str) -> Sequence[str]:
        """By the peer, or the application that it names."""
        return self._departments.get(cause) or self._departments.get(cause.partition(".")[2], ())

    async def _tell(self, alert: Alert, waiting: Mapping[str, int]) -> Failure | None:
        concerned = sorted({*alert.departments, *self._concerned(alert.cause), *waiting})
        kept = self._kept.get(alert.cause, 0)
        if not alert.due:
            return await self._tell_newcomers(alert, message_of(alert, waiting, concerned, kept, "alert"))
        message = message_of(alert, waiting, concerned, kept)

        async def note(mark: str) -> None:
            name = mark.partition(":")[2]
            await self._store.note_told(alert, mark, self._channels.hearers.get(name, name))

        # Not by the number of tries: whoever made the first may have died of it before.
        mark = f"{message.kind}:{LOG}"
        if mark not in alert.told_to:
            say = log.info if alert.cleared or alert.is_news else log.error
            say(message.kind, cause=alert.cause, sentence=message.sentence, advice=message.advice)
            await note(mark)
        broken = await self._channels.tell(message, alert.told_to, note)
        if broken is None:
            await self._store.mark_told(alert)
        else:
            await self._put_off(alert)
        return broken

    async def _tell_newcomers(self, alert: Alert, message: Message) -> Failure | None:
        """A channel that was added or changed since: whoever hears by it would hear of its end alone."""
        heard = {name for name, who in self._channels.hearers.items() if who in (alert.heard_by or ())}

        async def note(mark: str) -> None:
            await self._store.note_heard(alert, self._channels.hearers[mark.partition(":")[2]])

        broken = await self._channels.tell(message, {f"{message.kind}:{name}" for name in heard}, note)
        if broken is not None:
            await self._put_off(alert)
        return broken

    async def _put_off(self, alert: Alert) -> None:
        await self._store.put_off_telling(alert, min(_MOST, _FIRST * 2.0 ** min(alert.tries, 30)))


Kind = Literal["alert", "reminder", "all-clear"]


def message_of(
    alert: Alert,
    waiting: Mapping[str, int],
    departments: Sequence[str] = (),
    kept: int = 0,
    kind: Kind | None = None,
) -> Message:
    """`waiting`: for a peer, by department; `kept`: jobs that another cause keeps."""
    since = _dated(alert)
    if alert.cleared_at is not None:
        lasted = f"{clock(alert.since)} to {clock(alert.cleared_at)}"
        sentence = f"over after {how_long(alert.since, alert.cleared_at)}: “{alert.sentence}” ({lasted})"
    elif _is_a_peer(alert.cause):
        sentence = f"{since}; {_jobs(waiting)}; nothing is lost"
    elif alert.cause == _COLLECTOR:
        sentence = f"{since}; what it is to hear is kept, nothing is lost"
    else:
        sentence = since
    if alert.cleared and _is_a_peer(alert.cause):
        sentence = f"{sentence}; what waited for it is tried again by itself"
    kind = kind or _kind(alert)
    before = (alert.reminded_at or alert.told_at) if kind == "reminder" else None
    return Message(
        alert.id,
        kind,
        alert.cause,
        sentence,
        "" if alert.cleared else alert.advice,
        _utc(alert.since),
        None if alert.cleared_at is None else _utc(alert.cleared_at),
        sum(waiting.values()) + (0 if alert.cleared else kept),
        tuple(departments),
        name_telling(alert.id, kind, before),
    )


def _dated(alert: Alert) -> str:
    """Since when it stands, before the reason, if its sentence has one after a colon."""
    when = f"{'at' if alert.is_news else 'since'} {clock(alert.since)}"
    head, colon, reason = alert.sentence.partition(": ")
    if head.count("(") > head.count(")"):  # the colon of an aside
        return f"{alert.sentence} {when}"
    return f"{head} {when}{colon}{reason}"


def _is_a_peer(cause: str) -> bool:
    return cause.partition(".")[0] in ("archives", "adapters", "destinations", "sectra")


def _kind(alert: Alert) -> Kind:
    if alert.cleared:
        return "all-clear"
    return "alert" if alert.told_at is None else "reminder"


def _jobs(waiting: Mapping[str, int]) -> str:
    """37 pathology jobs wait; or of which departments how many."""
    count = sum(waiting.values())
    said = "job waits" if count == 1 else "jobs wait"
    if len(waiting) == 1:
        return f"{count} {next(iter(waiting))} {said}"
    of_each = ", ".join(f"{number} {name}" for name, number in sorted(waiting.items()))
    return f"{count} {said} ({of_each})" if waiting else f"{count} {said}"


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
