"""The adapter for vendors that speak DIMSE: the shared suite, and what is its own."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest
from pydantic import ValidationError

from adapters.dimse.adapter import Dimse
from adapters.dimse.wire import Options
from gateway.contract import Adapter, Failure, Finished, NeedsHuman, Pending, Permanent, Retryable, Sender
from gateway.suite.contract import AdapterContract
from gateway.suite.studies import ORDER, STUDY, GivenStudy
from gateway.suite.vendor import Fault, Step
from tests.peers import dcmtk
from tests.peers.dimse_vendor import DimseVendor


@pytest.fixture
async def vendor() -> AsyncIterator[DimseVendor]:
    vendor = DimseVendor()
    yield vendor
    await vendor.stop()


class TestDimse(AdapterContract):
    """Polling asks nobody: what came is there. A rejection carries no time; nobody is sent elsewhere."""

    steps: ClassVar[tuple[Step, ...]] = ("submit", "find")
    certain: ClassVar[tuple[int, ...]] = (500, 502, 503)
    brought: ClassVar[bool] = True
    nonsense: ClassVar[Mapping[str, Fault]] = {
        "status": Fault(200),
        "raw": Fault(raw=b"HTTP/1.1 200 OK\r\n\r\n"),
        "long": Fault(raw=b"\4\0\xff\xff\xff\xff" + bytes(100)),
    }
    test_a_redirect_is_not_followed = None  # type: ignore[assignment]

    async def test_a_busy_vendor_says_how_long(self, vendor, adapter: Adapter, step: Step) -> None:
        call = await self.ready(adapter, step)
        vendor.faults[step] = Fault(429)
        failure = await self.failing(vendor, call())
        assert isinstance(failure, Retryable)
        assert not failure.uncertain


@pytest.fixture
async def adapter(vendor: DimseVendor, tmp_path: Path) -> AsyncIterator[Dimse]:
    async with aiohttp.ClientSession() as session:
        yield vendor.adapter(session, tmp_path)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0x0124, NeedsHuman), (0x0122, Permanent), (0xC001, Permanent), (0xA700, Retryable)],
)
async def test_a_refused_instance_ends_it(
    vendor: DimseVendor, adapter: Dimse, status: int, kind: type[Failure]
) -> None:
    vendor.status = status
    with pytest.raises(kind):
        await adapter.submit(ORDER, GivenStudy())
    assert vendor.complete == []


@pytest.mark.parametrize("status", [0x0111, 0xB007])
async def test_warnings_and_what_is_known_count_as_taken(
    vendor: DimseVendor, adapter: Dimse, status: int, tmp_path: Path
) -> None:
    vendor.status = status
    ticket = await adapter.submit(ORDER, GivenStudy())
    assert len(ticket.acknowledged or ()) == 3
    assert list(tmp_path.iterdir()) == []


async def test_results_are_complete_once_they_have_been_quiet(vendor: DimseVendor, tmp_path: Path) -> None:
    vendor.options["quiet"] = "30s"
    async with aiohttp.ClientSession() as session:
        adapter = vendor.adapter(session, tmp_path)
        ticket = await adapter.submit(ORDER, GivenStudy())
        old, young = vendor.finish(STUDY, number=901), vendor.finish(STUDY, number=902)
        os.utime(old, (time.time() - 100,) * 2)
        pending = await adapter.poll(ticket)
        assert isinstance(pending, Pending) and 25 < pending.after <= 30
        os.utime(young, (time.time() - 31,) * 2)
        finished = await adapter.poll(ticket)
        assert isinstance(finished, Finished) and finished.dicom == (old, young)


async def test_a_vendor_that_finds_nothing(vendor: DimseVendor, tmp_path: Path) -> None:
    vendor.options["empty_after"] = "1ms"
    async with aiohttp.ClientSession() as session:
        adapter = vendor.adapter(session, tmp_path)
        ticket = await adapter.submit(ORDER, GivenStudy())
        time.sleep(0.01)
        finished = await adapter.poll(ticket)
        assert isinstance(finished, Finished) and finished.empty


async def test_a_vendor_that_only_stores_is_enough(tmp_path: Path) -> None:
    """dcmtk's storescp answers no questions; what a crash left open is then sent again."""
    with dcmtk.receiver(tmp_path / "vendor") as port:
        options = Options.model_validate({"host": "127.0.0.1", "port": port, "ae_title": "STORESCP"})
        async with aiohttp.ClientSession() as session:
            (tmp_path / "work").mkdir()
            adapter = Dimse(options, session, tmp_path / "work")
            for _ in range(2):
                ticket = await adapter.submit(ORDER, GivenStudy())
                assert len(ticket.acknowledged or ()) == 3
            assert await adapter.find(ORDER) is None
            assert (await adapter.check()).ok
            assert list(adapter.senders()) == [Sender("STORESCP", "127.0.0.1")]
    assert len(list((tmp_path / "vendor").iterdir())) == 3


@pytest.mark.parametrize("wrong", [{"port": 0}, {"ae_title": "x" * 17}, {"quiet": "soon"}, {"url": "x"}])
def test_wrong_options_are_refused(wrong: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"host": "v", "port": 104, "ae_title": "V", **wrong})
