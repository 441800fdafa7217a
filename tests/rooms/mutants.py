"""Adapters that each make one mistake which costs money or a diagnosis: run by test_suite.py, to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import pytest

from adapters.milvue.adapter import Milvue
from gateway.contract import Failure, Finished, NeedsHuman, Order, Pending, Retryable, Study, Ticket
from gateway.kit import shelf
from gateway.suite.contract import AdapterContract
from gateway.suite.vendor import Outcome
from tests.peers.milvue_vendor import MilvueVendor

EMPTY = Finished("nothing found", empty=True)


class SendsAgain(Milvue):
    async def submit(self, order: Order, study: Study) -> Ticket:
        try:
            return await super().submit(order, study)
        except Retryable as failure:
            if not failure.uncertain:
                raise
            return await super().submit(order, study)


class Sleeps(Milvue):
    async def find(self, order: Order) -> Ticket | None:
        try:
            return await super().find(order)
        except Retryable:
            await asyncio.sleep(0.01)
            return await super().find(order)


class TakesWhatWasCut(Milvue):
    async def poll(self, ticket: Ticket) -> Pending | Finished:
        async def close(self: shelf.ResultFile) -> None:
            self.close()

        with patch.object(shelf.ResultFile, "finish", close):
            return await super().poll(ticket)


class KnowsNoLimit(Milvue):
    async def poll(self, ticket: Ticket) -> Pending | Finished:
        self._options = self._options.model_copy(update={"most_result_bytes": 2**40})
        return await super().poll(ticket)


class TakesForbiddenForEmpty(Milvue):
    async def poll(self, ticket: Ticket) -> Pending | Finished:
        try:
            return await super().poll(ticket)
        except NeedsHuman:
            return EMPTY


class TakesAnErrorForEmpty(Milvue):
    async def poll(self, ticket: Ticket) -> Pending | Finished:
        try:
            return await super().poll(ticket)
        except NeedsHuman:
            raise
        except Failure:
            return EMPTY


class AcknowledgesTooMuch(Milvue):
    async def submit(self, order: Order, study: Study) -> Ticket:
        ticket = await super().submit(order, study)
        return replace(ticket, acknowledged=tuple(f"{study.study_instance_uid}.1.{n}" for n in range(3)))


class Remembers(Milvue):
    known: str | None = None

    async def submit(self, order: Order, study: Study) -> Ticket:
        self.known = study.study_instance_uid
        return Ticket("somewhere")

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        return await super().poll(Ticket(self.known or "", state={"study": self.known or ""}))


class Mutant(AdapterContract):
    kind: ClassVar[type[Milvue]]
    outcomes: ClassVar[tuple[Outcome, ...]] = ("empty", "forbidden", "error")

    @pytest.fixture
    async def vendor(self) -> AsyncIterator[MilvueVendor]:
        vendor = MilvueVendor()
        vendor.kind = self.kind
        await vendor.start()
        yield vendor
        await vendor.stop()


class TestSendsAgain(Mutant):
    kind = SendsAgain


class TestSleeps(Mutant):
    kind = Sleeps


class TestTakesWhatWasCut(Mutant):
    kind = TakesWhatWasCut


class TestKnowsNoLimit(Mutant):
    kind = KnowsNoLimit


class TestTakesForbiddenForEmpty(Mutant):
    kind = TakesForbiddenForEmpty


class TestTakesAnErrorForEmpty(Mutant):
    kind = TakesAnErrorForEmpty


class TestAcknowledgesTooMuch(Mutant):
    kind = AcknowledgesTooMuch


class TestRemembers(Mutant):
    kind = Remembers


class TestNothingWrong(Mutant):
    kind = Milvue
