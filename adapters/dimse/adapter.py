"""Any vendor that speaks DIMSE: takes a study by C-STORE, and stores its results with us the same way.

It says nothing of its progress: the results are complete once nothing more has come for a while. Which job
they belong to is found out before they come here: they lie in the inbox below the work folder. Nothing can be
cancelled there, and nothing be changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from pydantic import BaseModel

from adapters.dimse.wire import Options as DimseOptions
from adapters.dimse.wire import Wire
from gateway.contract import (
    Failure,
    Finished,
    Health,
    Order,
    Pending,
    Sender,
    Study,
    Ticket,
)
from gateway.dicom.inbox import look_into


class Dimse:
    Options: ClassVar[type[BaseModel]] = DimseOptions

    def __init__(self, options: DimseOptions, session: aiohttp.ClientSession, work: Path) -> None:  # noqa: ARG002
        self._options = options
        self._wire = Wire(options)
        self._work = work

    async def submit(self, order: Order, study: Study) -> Ticket:  # noqa: ARG002 (the contract's)
        return _ticket(study.study_instance_uid, await self._wire.send(study, self._work))

    async def find(self, order: Order) -> Ticket | None:
        """All that the vendor lists, if it answers questions; else what was sent is sent again, and a vendor
        knows an instance by its UID."""
        there = await self._wire.list_study(order.study_instance_uid)
        return _ticket(order.study_instance_uid, tuple(sorted(there))) if there else None

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        state = dict(ticket.state)
        study = str(state.get("study", ticket.reference))
        inbox = look_into(self._work)
        if not inbox.files:
            waited = time.time() - state.setdefault("since", time.time())
            if self._options.empty_after is not None and waited >= self._options.empty_after:
                return Finished(f"The vendor returned nothing within {waited:.0f} s.", empty=True)
            return self._pending(ticket, state, "The vendor is analysing.")
        if inbox.still < self._options.quiet:
            note = f"{len(inbox.files)} results came; waiting for more."
            return self._pending(ticket, state, note, self._options.quiet - inbox.still)
        said = await asyncio.to_thread(inbox.describe, study)
        return Finished(f"The vendor returned {said}.", dicom=inbox.files)

    async def cancel(self, ticket: Ticket) -> None:
        """DIMSE knows no cancelling of what has been stored: what the vendor still sends is refused."""

    async def check(self) -> Health:
        try:
            await self._wire.greet()
        except Failure as failure:
            return Health(ok=False, sentence=failure.sentences)
        return Health(True, "The vendor answers and lets us in.")

    def senders(self) -> Iterable[Sender]:
        options = self._options
        return options.results_from or [Sender(options.ae_title, options.host)]

    def _pending(
        self, ticket: Ticket, state: dict[str, Any], note: str, after: float | None = None
    ) -> Pending:
        polls = state.get("polls")
        polls = polls if isinstance(polls, int) else 0
        pause = min(self._options.first_poll * 1.5 ** min(polls, 64), self._options.slowest_poll)
        state["polls"] = polls + 1
        renewed = Ticket(ticket.reference, ticket.acknowledged, state)
        return Pending(pause if after is None else max(after, 0.05), note, ticket=renewed)


def _ticket(study: str, acknowledged: tuple[str, ...]) -> Ticket:
    return Ticket(study, acknowledged, {"study": study, "since": time.time(), "polls": 0})
