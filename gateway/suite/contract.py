"""What every adapter must do, whatever its vendor: subclass `AdapterContract` and give it a `vendor`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
import pytest_asyncio

from gateway.contract import (
    Adapter,
    Failure,
    Finished,
    NeedsHuman,
    Order,
    Pending,
    Permanent,
    Retryable,
    Ticket,
)
from gateway.suite.studies import ORDER, OTHER_STUDY, STUDY, GivenStudy
from gateway.suite.vendor import NONSENSE, Fault, Outcome, Step, Vendor

_NAME = "Zyxwvut^Kanarienvogel"  # of a patient, in what a vendor says
_REPEATING = b'{"message": "bad token %s of ' + _NAME.encode() + b'"}'
_IN_ADAPTER: ContextVar[bool] = ContextVar("in_adapter", default=False)


@contextmanager
def watching() -> Iterator[None]:
    """What is called now is the adapter's doing, and what it starts."""
    token = _IN_ADAPTER.set(True)
    try:
        yield
    finally:
        _IN_ADAPTER.reset(token)


async def until_still(study: GivenStudy) -> None:
    """Waits until nothing more is taken from the study."""
    before = -1
    while study.given == 0 or study.given != before:
        before = study.given
        await asyncio.sleep(0.4)


def stored(ticket: Ticket) -> Ticket:
    """The ticket as it comes back from the database."""
    kept: dict[str, Any] = json.loads(json.dumps(asdict(ticket)))
    acknowledged = kept["acknowledged"]
    again = Ticket(
        kept["reference"], None if acknowledged is None else tuple(acknowledged), dict(kept["state"])
    )
    assert again == ticket
    return again


class CallsContract:
    """For every adapter. `vendor` is a fixture of the subclass, which says what its vendor is asked for.

    `certain`: answers to a submission that say for sure that the vendor didn't take it."""

    steps: ClassVar[tuple[Step, ...]] = ("submit", "find", "poll")
    order: ClassVar[Order] = ORDER
    certain: ClassVar[tuple[int, ...]] = ()
    nonsense: ClassVar[Mapping[str, Fault]] = NONSENSE

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "step" in metafunc.fixturenames:
            metafunc.parametrize("step", metafunc.cls.steps)
        if "outcome" in metafunc.fixturenames:
            metafunc.parametrize("outcome", metafunc.cls.outcomes)
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", metafunc.cls.nonsense.values(), ids=metafunc.cls.nonsense.keys())

    @pytest.fixture(autouse=True)
    def sleepless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An adapter raises what happened; when to try again is the engine's to say."""
        doze, block = asyncio.sleep, time.sleep

        async def sleep(delay: float, result: Any = None) -> Any:
            assert delay <= 0 or not _IN_ADAPTER.get(), "the adapter sleeps"
            return await doze(delay, result)

        def sleep_blocking(delay: float) -> None:
            at_work = _IN_ADAPTER.get() and threading.current_thread() is threading.main_thread()
            assert not at_work, "the adapter sleeps"
            block(delay)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(time, "sleep", sleep_blocking)

    @pytest_asyncio.fixture
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession() as session:
            yield session

    @pytest.fixture
    def adapter(self, vendor: Vendor, session: aiohttp.ClientSession, tmp_path: Path) -> Adapter:
        return vendor.adapter(session, tmp_path)

    @pytest.fixture
    def hasty(self, vendor: Vendor, session: aiohttp.ClientSession, tmp_path: Path) -> Adapter:
        return vendor.adapter(session, tmp_path, patience=1)

    async def failing(self, vendor: Vendor, step: Awaitable[object]) -> Failure:
        with pytest.raises(Failure) as caught, watching():
            await step
        failure = caught.value
        told = "".join(traceback.format_exception(failure)) + failure.advice + repr(failure.detail)
        assert vendor.secret not in told
        assert _NAME not in told, "the vendor's own words belong into `said`"
        assert STUDY not in failure.message + failure.advice
        assert not failure.message.endswith(".")
        return failure

    async def ready(self, adapter: Adapter, step: Step) -> Callable[[], Awaitable[object]]:
        """The call of a step, before which nothing has gone wrong yet."""
        if step == "submit":
            return lambda: adapter.submit(self.order, GivenStudy())
        if step == "find":
            return lambda: adapter.find(self.order)
        ticket = stored(await adapter.submit(self.order, GivenStudy(size=2_000)))
        return lambda: adapter.poll(ticket)

    # Failures

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_credential_needs_a_human(
        self, vendor: Vendor, adapter: Adapter, step: Step, status: int
    ) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = Fault(status, body=_REPEATING % vendor.secret.encode())
        failure = await self.failing(vendor, call())
        assert isinstance(failure, NeedsHuman)
        assert failure.advice

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_a_broken_vendor_is_tried_again(
        self, vendor: Vendor, adapter: Adapter, step: Step, status: int
    ) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = Fault(status, body=b"<html>bad gateway</html>")
        failure = await self.failing(vendor, call())
        assert isinstance(failure, Retryable)
        assert failure.uncertain is (step == "submit" and status not in self.certain)

    async def test_a_busy_vendor_says_how_long(self, vendor: Vendor, adapter: Adapter, step: Step) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = Fault(429, {"Retry-After": "7"})
        failure = await self.failing(vendor, call())
        assert isinstance(failure, Retryable)
        assert (failure.after, failure.uncertain) == (7, False)

    async def test_a_redirect_is_not_followed(self, vendor: Vendor, adapter: Adapter, step: Step) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = Fault(307, {"Location": "http://127.0.0.1:9/elsewhere"})
        assert isinstance(await self.failing(vendor, call()), NeedsHuman)

    async def test_a_vendor_that_is_away_has_nothing(
        self, vendor: Vendor, adapter: Adapter, step: Step
    ) -> None:
        call = await self.ready(adapter, step)
        await vendor.stop()
        failure = await self.failing(vendor, call())
        assert isinstance(failure, Retryable)
        assert not failure.uncertain

    async def test_a_vendor_that_hangs_is_given_up(self, vendor: Vendor, hasty: Adapter, step: Step) -> None:
        call = await self.ready(hasty, step)
        vendor.faults[step] = Fault(hang=True)
        async with asyncio.timeout(60):
            failure = await self.failing(vendor, call())
        assert isinstance(failure, Retryable)
        assert failure.uncertain is (step == "submit")

    async def test_nonsense_is_one_of_our_failures(
        self, vendor: Vendor, adapter: Adapter, step: Step, fault: Fault
    ) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = fault
        assert isinstance(await self.failing(vendor, call()), Retryable)

    # Health

    async def test_health_tells_and_never_raises(
        self, vendor: Vendor, adapter: Adapter, hasty: Adapter
    ) -> None:
        assert (await adapter.check()).ok
        for fault in (Fault(403), Fault(503), Fault(hang=True), Fault(raw=b"?\r\n\r\n")):
            vendor.faults["find"] = fault
            health = await hasty.check()
            assert not health.ok
            assert health.sentence
            assert vendor.secret not in health.sentence
        await vendor.stop()
        assert not (await hasty.check()).ok

    async def test_cancelling_is_safe(self, vendor: Vendor, adapter: Adapter) -> None:
        ticket = await adapter.submit(self.order, GivenStudy())
        await adapter.cancel(ticket)
        await adapter.cancel(ticket)


class AdapterContract(CallsContract):
    """For adapters that send studies. `brought`: the results lie in the inbox, limited by its doors.

    `outcomes`: how an analysis may end without a result, as far as this vendor tells it."""

    brought: ClassVar[bool] = False
    outcomes: ClassVar[tuple[Outcome, ...]] = ()

    def __init_subclass__(cls) -> None:
        """What doesn't apply to a vendor isn't there, rather than skipped."""
        if cls.brought:
            setattr(cls, "test_a_result_has_a_limit", None)  # noqa: B010 it is a method to the type checker
        if not cls.outcomes:
            setattr(cls, "test_no_result_is_told_from_none", None)  # noqa: B010

    # The way of a study

    async def test_a_study_arrives_bit_by_bit_as_it_was(self, vendor: Vendor, adapter: Adapter) -> None:
        study = GivenStudy()
        ticket = await adapter.submit(ORDER, study)
        assert vendor.complete == [STUDY]
        assert vendor.digests == study.digests
        assert ticket.acknowledged is None or len(set(ticket.acknowledged)) == study.promised
        assert study.walks_open == 0

    async def test_a_large_study_is_never_held(self, vendor: Vendor, adapter: Adapter) -> None:
        study = GivenStudy(promised=96, size=2**20)
        vendor.reading.clear()
        sending = asyncio.create_task(adapter.submit(ORDER, study))
        await until_still(study)
        assert study.given < 24 * 2**20
        vendor.reading.set()
        await sending
        assert vendor.complete == [STUDY]

    async def test_trouble_in_the_archive_stays_what_it_is(self, vendor: Vendor, adapter: Adapter) -> None:
        trouble = Retryable("the archive is away", after=42)
        study = GivenStudy(breaks_with=trouble)
        assert await self.failing(vendor, adapter.submit(ORDER, study)) is trouble
        assert vendor.complete == []
        assert study.walks_open == 0

    async def test_an_instance_of_another_study_is_not_sent(self, vendor: Vendor, adapter: Adapter) -> None:
        study = GivenStudy(instances_of=OTHER_STUDY)
        assert isinstance(await self.failing(vendor, adapter.submit(ORDER, study)), NeedsHuman)
        assert vendor.complete == []

    async def test_a_cancelled_submit_lets_the_study_go(self, vendor: Vendor, adapter: Adapter) -> None:
        study = GivenStudy(promised=96, size=2**20)
        vendor.reading.clear()
        sending = asyncio.create_task(adapter.submit(ORDER, study))
        await until_still(study)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            while study.walks_open:
                await asyncio.sleep(0.01)
        assert vendor.complete == []

    async def test_results_come_after_a_while(self, vendor: Vendor, adapter: Adapter, tmp_path: Path) -> None:
        ticket = stored(await adapter.submit(ORDER, GivenStudy()))
        waits = []
        for _ in range(4):
            pending = await adapter.poll(ticket)
            assert isinstance(pending, Pending)
            waits.append(pending.after)
            ticket = stored(pending.ticket or ticket)
        assert min(waits) > 0
        assert waits == sorted(waits)
        vendor.finish(STUDY)
        finished = await adapter.poll(ticket)
        assert isinstance(finished, Finished)
        assert not finished.empty
        assert finished.summary
        for path in (*finished.dicom, *(document.path for document in finished.documents)):
            assert path.resolve().is_relative_to(tmp_path.resolve())
            assert path.stat().st_size > 0

    async def test_results_of_another_study_are_held(self, vendor: Vendor, adapter: Adapter) -> None:
        ticket = await adapter.submit(ORDER, GivenStudy())
        vendor.finish(STUDY, results_of=OTHER_STUDY)
        assert isinstance(await self.failing(vendor, adapter.poll(ticket)), NeedsHuman)

    async def test_what_arrived_is_known(self, vendor: Vendor, adapter: Adapter) -> None:
        assert await adapter.find(ORDER) is None
        ticket = await adapter.submit(ORDER, GivenStudy())
        found = await adapter.find(ORDER)
        assert found is not None
        assert stored(found).reference == ticket.reference
        assert isinstance(await adapter.poll(found), Pending)

    async def test_a_vendor_that_dies_may_have_the_study(self, vendor: Vendor, adapter: Adapter) -> None:
        vendor.faults["submit"] = Fault(die=True)
        study = GivenStudy(promised=20, size=2**20)
        failure = await self.failing(vendor, adapter.submit(ORDER, study))
        assert isinstance(failure, Retryable)
        assert failure.uncertain
        assert study.walks_open == 0

    async def test_a_vendor_that_stops_reading_is_given_up(self, vendor: Vendor, hasty: Adapter) -> None:
        vendor.reading.clear()
        study = GivenStudy(promised=96, size=2**20)
        async with asyncio.timeout(60):
            failure = await self.failing(vendor, hasty.submit(ORDER, study))
        assert isinstance(failure, Retryable)
        assert failure.uncertain

    async def test_what_arrived_is_not_sent_again(self, vendor: Vendor, adapter: Adapter) -> None:
        """The study was taken, and the answer got lost."""
        vendor.faults["submit"] = Fault(lost=True)
        failure = await self.failing(vendor, adapter.submit(ORDER, GivenStudy()))
        assert isinstance(failure, Retryable)
        assert failure.uncertain
        assert vendor.sendings == 1
        vendor.faults.clear()
        if vendor.complete:
            assert await adapter.find(ORDER) is not None

    async def test_what_is_acknowledged_has_arrived(self, vendor: Vendor, adapter: Adapter) -> None:
        ticket = await adapter.submit(ORDER, GivenStudy(withheld=1))
        assert len(vendor.has) == 2
        assert ticket.acknowledged is None or set(ticket.acknowledged) == vendor.has

    async def test_nothing_is_remembered(
        self, vendor: Vendor, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        """Each step is done by another machine."""

        def anew(name: str) -> Adapter:
            (tmp_path / name).mkdir()
            return vendor.adapter(session, tmp_path / name)

        ticket = stored(await anew("sends").submit(ORDER, GivenStudy()))
        assert await anew("finds").find(ORDER) is not None
        pending = await anew("polls").poll(ticket)
        assert isinstance(pending, Pending)
        ticket = stored(pending.ticket or ticket)
        collects = anew("collects")
        vendor.finish(STUDY)
        assert isinstance(await collects.poll(ticket), Finished)
        await anew("cancels").cancel(ticket)

    # What comes back

    async def test_a_cut_result_is_not_whole(self, vendor: Vendor, adapter: Adapter) -> None:
        ticket = await adapter.submit(ORDER, GivenStudy())
        vendor.finish(STUDY, cut=True)
        assert isinstance(await self.failing(vendor, adapter.poll(ticket)), Retryable)

    async def test_a_result_has_a_limit(
        self, vendor: Vendor, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        adapter = vendor.adapter(session, tmp_path, most=2**20)
        ticket = await adapter.submit(ORDER, GivenStudy())
        vendor.finish(STUDY, size=4 * 2**20)
        await self.failing(vendor, adapter.poll(ticket))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 3 * 2**20

    async def test_no_result_is_told_from_none(
        self, vendor: Vendor, adapter: Adapter, outcome: Outcome
    ) -> None:
        ticket = await adapter.submit(ORDER, GivenStudy())
        vendor.end(STUDY, outcome)
        if outcome == "empty":
            answer = await adapter.poll(ticket)
            assert isinstance(answer, Finished)
            assert answer.empty
        else:
            failure = await self.failing(vendor, adapter.poll(ticket))
            assert isinstance(failure, NeedsHuman | Permanent)
