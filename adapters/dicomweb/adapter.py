"""Any vendor that speaks DICOMweb: takes a study by STOW-RS, and shows its results in the same study
(QIDO-RS, WADO-RS), there or on another server; or stores them with us by STOW-RS.

It says nothing of its progress: results are what is new in the study and looks like one, complete once
nothing more has come for a while. Nothing can be cancelled there, and nothing be changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from pydantic import BaseModel

from adapters.dicomweb.results import Collector, choose_results
from adapters.dicomweb.sending import send
from adapters.dicomweb.wire import Options as DicomwebOptions
from adapters.dicomweb.wire import Wire, unwritable
from gateway.contract import (
    Failure,
    Finished,
    Health,
    Order,
    Pending,
    Study,
    Ticket,
)
from gateway.dicom.certificate import certificate_expiry
from gateway.dicom.inbox import look_into
from gateway.dicom.web import require_uid


class Dicomweb:
    Options: ClassVar[type[BaseModel]] = DicomwebOptions

    def __init__(self, options: DicomwebOptions, session: aiohttp.ClientSession, work: Path) -> None:
        self._options = options
        self._wire = Wire(options, session)
        self._work = work

    async def submit(self, order: Order, study: Study) -> Ticket:  # noqa: ARG002 (the contract's)
        uid = require_uid(study.study_instance_uid)
        wire = self._wire
        there = await wire.list_study(wire.front, uid)
        before = there if wire.back is wire.front else await wire.list_study(wire.back, uid)
        noted = self._recall(uid)
        acknowledged = await send(wire, study, there, lambda: self._note(uid, before))
        if noted is None:
            # A study that was there whole has been looked at already: what was made of it is the result.
            fresh = any(one not in there for one in acknowledged)
            noted = sorted(before.keys() - set(acknowledged)) if fresh else []
        return _ticket(uid, acknowledged, noted)

    async def find(self, order: Order) -> Ticket | None:
        """All that the vendor lists; whose it is, the engine knows."""
        uid = require_uid(order.study_instance_uid)
        there = await self._wire.list_study(self._wire.front, uid)
        return _ticket(uid, tuple(sorted(there)), self._recall(uid) or []) if there else None

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        state = dict(ticket.state)
        uid = require_uid(str(state.get("study", ticket.reference)))
        if self._options.push_token is not None:
            return await self._look_into_inbox(ticket, state, uid)
        listed = await self._wire.list_study(self._wire.back, uid)
        inputs = {*(ticket.acknowledged or ()), *state.get("before", ())}
        results = choose_results(listed, inputs, self._options.results)
        now = time.time()
        if not results:
            return self._nothing_yet(ticket, state)
        seen = hashlib.sha256("\n".join(sorted(one.sop_instance_uid for one in results)).encode()).hexdigest()
        if state.get("seen") != seen:
            state |= {"seen": seen, "seen_at": now}
        still = now - state["seen_at"]
        if still < self._options.quiet:
            note = f"{len(results)} results came; waiting for more."
            return self._pending(ticket, state, note, self._options.quiet - still)
        collector = Collector(self._wire, uid, self._work)
        await collector.collect(results, listed)
        kinds = Counter(one.modality or "unknown" for one in results)
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return Finished(f"The vendor returned {said}.", dicom=tuple(collector.files))

    async def cancel(self, ticket: Ticket) -> None:
        """DICOMweb knows no cancelling: what the vendor makes is not fetched any more, that is all."""

    async def check(self) -> Health:
        wire = self._wire
        expires = []
        try:
            for peer in dict.fromkeys((wire.front, wire.back)):
                await wire.greet(peer)
                expires.append(await certificate_expiry(peer.url, self._options.connect_timeout))
        except Failure as failure:
            return Health(ok=False, sentence=failure.sentences)
        known = [moment for moment in expires if moment is not None]
        return Health(True, "The vendor answers and lets us in.", min(known) if known else None)

    def push_token(self) -> str | None:
        token = self._options.push_token
        return None if token is None else token.get_secret_value()

    async def _look_into_inbox(self, ticket: Ticket, state: dict[str, Any], uid: str) -> Pending | Finished:
        inbox = look_into(self._work)
        if not inbox.files:
            return self._nothing_yet(ticket, state)
        if inbox.still < self._options.quiet:
            note = f"{len(inbox.files)} results came; waiting for more."
            return self._pending(ticket, state, note, self._options.quiet - inbox.still)
        said = await asyncio.to_thread(inbox.describe, uid)
        return Finished(f"The vendor returned {said}.", dicom=inbox.files)

    def _nothing_yet(self, ticket: Ticket, state: dict[str, Any]) -> Pending | Finished:
        waited = time.time() - state.setdefault("since", time.time())
        if self._options.empty_after is not None and waited >= self._options.empty_after:
            return Finished(f"The vendor returned nothing within {waited:.0f} s.", empty=True)
        return self._pending(ticket, state, "The vendor is analysing.")

    def _note(self, study: str, before: Iterable[str]) -> None:
        """What was there before the first try of this job: a later one also meets what came of the first."""
        path = self._work / "before.json"
        if self._recall(study) is None:
            try:
                path.with_suffix(".new").write_text(json.dumps({"study": study, "before": sorted(before)}))
                path.with_suffix(".new").replace(path)
            except OSError:
                raise unwritable() from None

    def _recall(self, study: str) -> list[str] | None:
        try:
            noted = json.loads((self._work / "before.json").read_bytes())
            return [str(uid) for uid in noted["before"]] if noted["study"] == study else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _pending(
        self, ticket: Ticket, state: dict[str, Any], note: str, after: float | None = None
    ) -> Pending:
        polls = state.get("polls")
        polls = polls if isinstance(polls, int) else 0
        pause = min(self._options.first_poll * 1.5 ** min(polls, 64), self._options.slowest_poll)
        state["polls"] = polls + 1
        renewed = Ticket(ticket.reference, ticket.acknowledged, state)
        return Pending(pause if after is None else max(after, 0.05), note, ticket=renewed)


def _ticket(uid: str, acknowledged: tuple[str, ...], before: list[str]) -> Ticket:
    return Ticket(uid, acknowledged, {"study": uid, "before": before, "since": time.time(), "polls": 0})
