"""What every adapter must do, whatever its vendor: subclass `AdapterContract` and give it a `vendor`.

The vendor is a real HTTP server on loopback that speaks the vendor's wire format, written apart from the
adapter, so that a misunderstanding isn't made twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import aiohttp
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from gateway.contract import Adapter, Failure, Finished, Header, NeedsHuman, Order, Pending, Retryable, Ticket

STUDY = "1.2.826.0.1.3680043.10.999.1"
OTHER_STUDY = "1.2.826.0.1.3680043.10.999.2"
PIECE = 2**16

Step = Literal["submit", "find", "poll"]


@dataclass
class Fault:
    """Done to every call of a step. `die`: after the first bytes; `hang`: no byte read, none answered."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    die: bool = False
    hang: bool = False
    raw: bytes | None = None


class Vendor(Protocol):
    secret: str  # the credential, which no failure may show
    complete: list[str]  # the studies that arrived whole
    digests: set[str]  # sha256 of each instance of them
    received: int  # bytes of studies read so far
    reading: asyncio.Event  # cleared: the vendor stops reading in the middle
    faults: dict[Step, Fault]

    def adapter(self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120) -> Adapter: ...
    def finish(self, study: str, *, results_of: str | None = None) -> None: ...
    async def stop(self) -> None: ...


def make_instance(study: str, number: int, size: int, *, pixels: bool = True) -> bytes:
    """A Part 10 file as small as it may be, with so many bytes of pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = f"{study}.1.{number}"
    dataset.Modality = "CR"
    dataset.PatientName = "Synthetic^Nobody"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study}.1"
    dataset.BitsAllocated = 8
    if pixels:
        dataset.PixelData = hashlib.sha256(str(number).encode()).digest() * (size // 32)
        dataset["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@dataclass
class GivenInstance:
    header: Header
    data: bytes
    study: GivenStudy

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), PIECE):
            piece = self.data[at : at + PIECE]
            self.study.given += len(piece)
            yield piece
            await asyncio.sleep(0)


@dataclass
class GivenStudy:
    """A study that is made while it is read, that counts what was taken, and that may break."""

    study_instance_uid: str = STUDY
    promised: int = 3
    size: int = 200_000
    breaks_with: Exception | None = None
    breaks_before: int = 2
    instances_of: str | None = None
    given: int = 0
    walks_open: int = 0

    async def instances(self) -> AsyncIterator[GivenInstance]:
        self.walks_open += 1
        try:
            for number in range(self.promised):
                if self.breaks_with is not None and number == self.breaks_before:
                    raise self.breaks_with
                study = self.instances_of or self.study_instance_uid
                data = make_instance(study, number, self.size)
                header = Header(
                    study,
                    f"{study}.1",
                    f"{study}.1.{number}",
                    ComputedRadiographyImageStorage,
                    ExplicitVRLittleEndian,
                    "CR",
                )
                yield GivenInstance(header, data, self)
        finally:
            self.walks_open -= 1

    @property
    def digests(self) -> set[str]:
        made = (make_instance(self.study_instance_uid, n, self.size) for n in range(self.promised))
        return {hashlib.sha256(each).hexdigest() for each in made}


ORDER = Order("job-1", "trauma", STUDY)


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


NONSENSE = {
    "bytes": Fault(200, {"Content-Type": "application/json"}, b"\xff\xfe{{{"),
    "deep": Fault(200, {"Content-Type": "application/json"}, b"[" * 100_000),
    "types": Fault(200, {"Content-Type": "application/json"}, b'{"status": ["?"], "StudyInstanceUID": null}'),
    "null": Fault(200, {"Content-Type": "application/json"}, b"null"),
    "html": Fault(200, {"Content-Type": "text/html"}, b"<html>Please sign in</html>"),
    "empty": Fault(200, {"Content-Type": "multipart/related"}, b""),
    "raw": Fault(raw=b"\0\1\2 this isn't HTTP\r\n\r\n"),
    "short": Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"),
    "gzip": Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
    "chunks": Fault(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


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
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", metafunc.cls.nonsense.values(), ids=metafunc.cls.nonsense.keys())

    @pytest.fixture
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
        with pytest.raises(Failure) as caught:
            await step
        failure = caught.value
        told = "".join(traceback.format_exception(failure)) + failure.advice + repr(failure.detail)
        assert vendor.secret not in told
        assert STUDY not in failure.message + failure.advice
        assert not failure.message.endswith(".")
        return failure

    async def go(self, adapter: Adapter, step: Step) -> object:
        if step == "submit":
            return await adapter.submit(self.order, GivenStudy())
        if step == "find":
            return await adapter.find(self.order)
        return await adapter.poll(Ticket(STUDY, state={"study": STUDY}))

    # Failures

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_credential_needs_a_human(
        self, vendor: Vendor, adapter: Adapter, step: Step, status: int
    ) -> None:
        vendor.faults[step] = Fault(status, body=b'{"message": "bad token %s"}' % vendor.secret.encode())
        failure = await self.failing(vendor, self.go(adapter, step))
        assert isinstance(failure, NeedsHuman)
        assert failure.advice

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_a_broken_vendor_is_tried_again(
        self, vendor: Vendor, adapter: Adapter, step: Step, status: int
    ) -> None:
        vendor.faults[step] = Fault(status, body=b"<html>bad gateway</html>")
        failure = await self.failing(vendor, self.go(adapter, step))
        assert isinstance(failure, Retryable)
        assert failure.uncertain is (step == "submit" and status not in self.certain)

    async def test_a_busy_vendor_says_how_long(self, vendor: Vendor, adapter: Adapter, step: Step) -> None:
        vendor.faults[step] = Fault(429, {"Retry-After": "7"})
        failure = await self.failing(vendor, self.go(adapter, step))
        assert isinstance(failure, Retryable)
        assert (failure.after, failure.uncertain) == (7, False)

    async def test_a_redirect_is_not_followed(self, vendor: Vendor, adapter: Adapter, step: Step) -> None:
        vendor.faults[step] = Fault(307, {"Location": "http://127.0.0.1:9/elsewhere"})
        assert isinstance(await self.failing(vendor, self.go(adapter, step)), NeedsHuman)

    async def test_a_vendor_that_is_away_has_nothing(
        self, vendor: Vendor, adapter: Adapter, step: Step
    ) -> None:
        await vendor.stop()
        failure = await self.failing(vendor, self.go(adapter, step))
        assert isinstance(failure, Retryable)
        assert not failure.uncertain

    async def test_a_vendor_that_hangs_is_given_up(self, vendor: Vendor, hasty: Adapter, step: Step) -> None:
        vendor.faults[step] = Fault(hang=True)
        async with asyncio.timeout(60):
            failure = await self.failing(vendor, self.go(hasty, step))
        assert isinstance(failure, Retryable)
        assert failure.uncertain is (step == "submit")

    async def test_nonsense_is_one_of_our_failures(
        self, vendor: Vendor, adapter: Adapter, step: Step, fault: Fault
    ) -> None:
        vendor.faults[step] = fault
        assert isinstance(await self.failing(vendor, self.go(adapter, step)), Retryable)

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
    """For adapters that send studies."""

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
