"""Whether the past is as it was written: every history, every seal, the audit, and the seals that have left
the database. Page by page, however much there is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from gateway.jobs import escaped
from gateway.jobs.chain import digest_events, end_of, find_break, find_edit
from gateway.jobs.escaped import NoSeals
from gateway.jobs.records import Act, Seal
from gateway.jobs.signing import TrustedKeys
from gateway.jobs.store import Store
from gateway.jobs.store.seals import History

_PAGE = 500
_MOST = 1000  # sentences
_JUST_MADE = timedelta(minutes=10)  # another replica's, which ours hears of by and by
_SEALED_WITHIN = timedelta(hours=1)  # at the latest, unless nothing is sealed any more


@dataclass(slots=True)
class Inspection:
    """`breaks`: where something was tampered with, and how it shows. `unchecked`: what nobody could tell.
    Whatever ends it early, what was found until then stands here."""

    jobs: int = 0
    events: int = 0
    seals: int = 0
    unsigned: int = 0  # seals of an older release
    acts: int = 0  # of the audit
    outside: int = 0  # seals that have left the database
    breaks: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    async def run(
        self, store: Store, keys: TrustedKeys, against: Sequence[Path] = (), ours: Path | None = None
    ) -> None:
        """`ours`: the file, among those to compare with, that has each seal as soon as it is made."""
        await self._see_histories(store)
        inside = await self._see_seals(store, keys)
        outside: set[int] = set()
        for path in against:
            try:
                outside |= await self._see_outside(store, keys, path)
            except NoSeals as trouble:
                self._unclear(str(trouble))
            except OSError as trouble:
                self._unclear(f"{trouble.filename}: {trouble.strerror}")
        if outside:
            self._see_gaps(inside, outside, to_the_end=ours in against)

    def _broken(self, sentence: str) -> None:
        if len(self.breaks) < _MOST:
            self.breaks.append(sentence)

    def _unclear(self, sentence: str) -> None:
        if sentence not in self.unchecked:
            self.unchecked.append(sentence)

    # -- histories ------------------------------------------------------------------------------------

    async def _see_histories(self, store: Store) -> None:
        page = await store.histories(None, _PAGE)
        while page:
            amiss, following = await asyncio.gather(  # the server reads on while we reckon
                asyncio.to_thread(_amiss_among, page), store.histories(page[-1].job.id, _PAGE)
            )
            for job_id in amiss:
                alone = await store.history(job_id)
                if alone is not None and (broken := _break_in(alone)):
                    self._broken(f"job {job_id}: {broken}")
            self.jobs += len(page)
            self.events += sum(len(history.events) for history in page)
            page = following

    # -- seals ----------------------------------------------------------------------------------------

    async def _see_seals(self, store: Store, keys: TrustedKeys) -> set[int]:
        """Returns which there are, but for those that have just been made."""
        previous, numbers = "", set()
        now = datetime.now(UTC)
        signed: Seal | None = None
        async for number, seal in store.seals():
            self.seals += 1
            if now - seal.at > _JUST_MADE:
                numbers.add(number)
            if seal.previous_hash != previous:
                self._broken(f"seal {number}: doesn't follow the one before it")
            previous = seal.hash
            self._judge(f"seal {number}", seal, keys)
            if not seal.is_signed:
                self.unsigned += 1
                await self._miss(store, number, seal)
                continue
            await self._see_stretch(store, number, seal, signed)
            signed = seal
        since = await store.unsealed_since(signed.last_event_id if signed else 0)
        if since is not None and now - since > _SEALED_WITHIN:
            self._unclear(
                f"what happened since {since:%FT%TZ} is under no seal: none was made, or they were removed"
            )
        return numbers

    def _judge(self, name: str, seal: Seal, keys: TrustedKeys) -> None:
        if seal.digest() != seal.hash:
            self._broken(f"{name}: was changed after it was made")
        elif seal.is_signed:
            verdict = keys.judge(seal)
            if verdict == "forged":
                self._broken(f"{name}: its signature isn't of its key")
            elif verdict == "unknown key":
                self._unclear(f"the key {seal.signed_by}, which seals are signed with, isn't at hand")

    async def _see_stretch(self, store: Store, number: int, seal: Seal, before: Seal | None) -> None:
        event, act, link = end_of(before)
        if (seal.after_event_id, seal.after_audit_id) != (event, act):
            self._broken(f"seal {number}: doesn't begin where the one before it ended")
        event, act = seal.after_event_id or 0, seal.after_audit_id or 0
        if digest_events(await store.sealed_events(event, seal.last_event_id)) != seal.events_digest:
            missed = await self._miss(store, number, seal)
            if not missed:
                self._broken(
                    f"events up to {seal.last_event_id}: one was removed, put in or changed since"
                    f" seal {number}"
                )
        acts = await store.acts(act, seal.last_audit_id or 0)
        self.acts += len(acts)
        self._see_acts(number, seal, acts, link)

    def _see_acts(self, number: int, seal: Seal, acts: Sequence[Act], link: str) -> None:
        for act in acts:
            link = act.digest(link)
            if link != act.hash:
                self._broken(
                    f"audit {act.id}: it was changed, put in, or doesn't follow the one before it, since seal"
                    f" {number}"
                )
                return
        if link != (seal.audit_hash or ""):
            self._broken(f"audit up to {seal.last_audit_id}: it was cut short since seal {number}")

    async def _miss(self, store: Store, number: int, seal: Seal) -> bool:
        lost = await store.lost_heads(seal.heads)
        for job_id in lost:
            self._broken(f"job {job_id}: sealed by seal {number}, and gone or cut short since")
        return bool(lost)

    # -- seals that have left the database ------------------------------------------------------------

    async def _see_outside(self, store: Store, keys: TrustedKeys, path: Path) -> set[int]:
        """Returns which stand there whole."""
        numbers = set()
        for number, hashed, seal in escaped.look(path):
            self.outside += 1
            if seal is not None:
                numbers.add(number)
                self._judge(f"{path}: seal {number}", seal, keys)
            known = await store.seal_hash(number)
            if known == hashed:
                continue
            gone = "is gone from the database" if known is None else "is another in the database now"
            self._broken(f"seal {number}: {gone}; {path} has it as it was")
            if seal is not None:
                await self._miss(store, number, seal)
        return numbers

    def _see_gaps(self, inside: set[int], outside: set[int], *, to_the_end: bool) -> None:
        """A copy may be of yesterday; what has gone from its middle, or from the end of our own file, was
        taken away."""
        missing = sorted(each for each in inside - outside if to_the_end or each < max(outside))
        if missing:
            self._unclear(
                f"{len(missing)} of the database's seals ({missing[0]} to {missing[-1]}) are missing in the"
                " file: whether they are those that were made isn't known"
            )


def _amiss_among(page: Sequence[History]) -> list[UUID]:
    return [history.job.id for history in page if _break_in(history)]


def _break_in(history: History) -> str | None:
    return find_break(history.job.id, history.events) or find_edit(history.job, history.events)
