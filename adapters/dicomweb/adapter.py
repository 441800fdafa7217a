"""Any vendor that speaks DICOMweb: takes a study by STOW-RS, and shows its results in the same study
(QIDO-RS, WADO-RS), there or on another server; or stores them with us by STOW-RS.

It says nothing of its progress: results are what is new in the study and looks like one, complete once
nothing more has come for a while. Nothing can be cancelled there, and nothing be changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import ClassVar

import aiohttp
from pydantic import BaseModel

from adapters.dicomweb.results import choose_results, collect
from adapters.dicomweb.sending import send
from adapters.dicomweb.wire import Listed, Wire
from adapters.dicomweb.wire import Options as DicomwebOptions
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
from gateway.dicom.web import require_uid
from gateway.kit.folder import note, recall
from gateway.kit.inbox import count_kinds, wait_for_quiet
from gateway.kit.polling import more_to_come, nothing_yet
from gateway.kit.shelf import Shelf

_BEFORE = "before.json"


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
        were = {known: each.made_at for known, each in before.items()}
        acknowledged = await send(wire, study, there, lambda: self._note(uid, were))
        if noted is None:
            # A study that was there whole has been looked at already: what was made of it is the result.
            fresh = any(instance not in there for instance in acknowledged)
            noted = {known: at for known, at in were.items() if known not in acknowledged} if fresh else {}
        return _ticket(uid, acknowledged, noted)

    async def find(self, order: Order) -> Ticket | None:
        """All that the vendor lists; whose it is, the engine knows."""
        uid = require_uid(order.study_instance_uid)
        there = await self._wire.list_study(self._wire.front, uid)
        return _ticket(uid, tuple(sorted(there)), self._recall(uid) or {}) if there else None

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        return await self.poll_among(ticket, _nothing)

    async def poll_among(
        self, ticket: Ticket, delivered: Callable[[Collection[str]], Awaitable[Collection[str]]]
    ) -> Pending | Finished:
        uid = require_uid(str(ticket.state.get("study", ticket.reference)))
        if self._options.push_token is not None:
            return await wait_for_quiet(self._work, ticket, self._options, uid)
        listed = await self._wire.list_study(self._wire.back, uid)
        inputs = {*(ticket.acknowledged or ()), *_untouched(ticket, listed)}
        inputs |= set(await delivered(listed.keys() - inputs))
        results = choose_results(listed, inputs, self._options.results)
        if not results:
            return nothing_yet(ticket, self._options)
        state, now = dict(ticket.state), time.time()
        uids = sorted(result.sop_instance_uid for result in results)
        seen = hashlib.sha256("\n".join(f"{uid} {listed[uid].made_at}" for uid in uids).encode()).hexdigest()
        if state.get("seen") != seen:
            state |= {"seen": seen, "seen_at": now}
        wait = more_to_come(ticket, self._options, len(results), now - state["seen_at"], state)
        if wait is not None:
            return wait
        shelf = Shelf(self._work, uid, self._options.most_result_bytes)
        await collect(self._wire, shelf, results, listed)
        said = count_kinds(result.modality for result in results)
        anew = len(set(uids).intersection(ticket.state.get("before", ())))
        again = f" It has made {anew} of them anew under the UID of an earlier one." if anew else ""
        return Finished(f"The vendor returned {said}.{again}", dicom=tuple(shelf.files))

    async def cancel(self, ticket: Ticket) -> None:
        """DICOMweb knows no cancelling: what the vendor makes is not fetched any more, that is all."""

    async def check(self) -> Health:
        wire = self._wire
        expires = []
        try:
            for peer in dict.fromkeys((wire.front, wire.back)):
                await wire.greet(peer)
                expires.append(certificate_expiry(wire.session, peer.url))
        except Failure as failure:
            return Health.ill(failure)
        known = [moment for moment in expires if moment is not None]
        return Health(True, "The vendor answers and lets us in.", min(known) if known else None)

    def push_token(self) -> str | None:
        token = self._options.push_token
        return None if token is None else token.get_secret_value()

    def _note(self, study: str, before: Mapping[str, str]) -> None:
        """What was there before the first try of this job: a later one also meets what came of the first."""
        if self._recall(study) is None:
            note(self._work / _BEFORE, {"study": study, "before": dict(before)})

    def _recall(self, study: str) -> dict[str, str] | None:
        noted = recall(self._work / _BEFORE)
        before = noted.get("before")
        if noted.get("study") != study or not isinstance(before, dict | list):
            return None
        made_at = before.get if isinstance(before, dict) else lambda _: ""  # a list is the release's before
        return {str(uid): str(made_at(uid)) for uid in before}


async def _nothing(_: Collection[str]) -> Collection[str]:
    return ()


def _untouched(ticket: Ticket, listed: Mapping[str, Listed]) -> list[str]:
    """What was there before, but for what has been made anew since under the UID that it had."""
    made_at = ticket.state.get("made_at", {})
    return [
        uid
        for uid in ticket.state.get("before", ())
        if uid not in listed or made_at.get(uid, "") in ("", listed[uid].made_at)
    ]


def _ticket(uid: str, acknowledged: tuple[str, ...], before: Mapping[str, str]) -> Ticket:
    made_at = {known: at for known, at in before.items() if at}
    state = {"study": uid, "before": sorted(before), "made_at": made_at, "since": time.time(), "polls": 0}
    return Ticket(uid, acknowledged, state)
