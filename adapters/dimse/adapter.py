"""Any vendor that speaks DIMSE: takes a study by C-STORE, and stores its results with us the same way.

It says nothing of its progress: the results are complete once nothing more has come for a while. Which job
they belong to is found out before they come here: they lie in the inbox below the work folder. Nothing can be
cancelled there, and nothing be changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

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
from gateway.kit.inbox import wait_for_quiet


class Dimse:
    Options: ClassVar[type[BaseModel]] = DimseOptions

    def __init__(self, options: DimseOptions, session: aiohttp.ClientSession, work: Path) -> None:
        self._options = options
        self._wire = Wire(options, session)
        self._work = work

    async def submit(self, order: Order, study: Study) -> Ticket:  # noqa: ARG002 (the contract's)
        return _ticket(study.study_instance_uid, await self._wire.send(study, self._work))

    async def find(self, order: Order) -> Ticket | None:
        """All that the vendor lists, if it answers questions; else what was sent is sent again, and a vendor
        knows an instance by its UID."""
        there = await self._wire.list_study(order.study_instance_uid)
        return _ticket(order.study_instance_uid, tuple(sorted(there))) if there else None

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        study = str(ticket.state.get("study", ticket.reference))
        return await wait_for_quiet(self._work, ticket, self._options, study)

    async def cancel(self, ticket: Ticket) -> None:
        """DIMSE knows no cancelling of what has been stored: what the vendor still sends is refused."""

    async def check(self) -> Health:
        try:
            expires = await self._wire.greet()
        except Failure as failure:
            return Health.ill(failure)
        return Health(True, "The vendor answers and lets us in.", expires)

    def senders(self) -> Iterable[Sender]:
        options = self._options
        return options.results_from or [Sender(options.ae_title, options.host)]


def _ticket(study: str, acknowledged: tuple[str, ...]) -> Ticket:
    return Ticket(study, acknowledged, {"study": study, "since": time.time(), "polls": 0})
