"""The adapter for vendors that speak DICOMweb: the shared suite, what is its own, and a real Orthanc."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pydicom
import pytest
from aiohttp import web
from pydantic import ValidationError

from adapters.dicomweb.adapter import Dicomweb
from adapters.dicomweb.wire import Options
from gateway.contract import (
    Failure,
    Finished,
    Header,
    NeedsHuman,
    Order,
    Pending,
    Permanent,
    Retryable,
    Sharing,
)
from gateway.suite.contract import AdapterContract, stored
from gateway.suite.studies import OTHER_STUDY, STUDY, GivenStudy, make_instance
from gateway.suite.vendor import Fault
from tests.peers.dicom_samples import encode
from tests.peers.dicom_samples import make_instance as make_image
from tests.peers.dicomweb_vendor import SERIES, DicomwebVendor
from tests.peers.dicomweb_vendor import stored as said
from tests.peers.orthanc import USER, Orthanc, orthanc

ORDER = Order("job-1", "trauma", STUDY)
UIDS = [f"{STUDY}.1.{number}" for number in range(3)]


@pytest.fixture
async def vendor() -> AsyncIterator[DicomwebVendor]:
    vendor = DicomwebVendor()
    await vendor.start()
    yield vendor
    await vendor.stop()


class TestDicomweb(AdapterContract):
    certain: ClassVar[tuple[int, ...]] = (503,)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def adapter(vendor: DicomwebVendor, session: aiohttp.ClientSession, tmp_path: Path) -> Dicomweb:
    return vendor.adapter(session, tmp_path)


async def failing(kind: type[Failure], step: object) -> Failure:
    with pytest.raises(kind) as caught:
        await step  # type: ignore[misc]
    return caught.value


def put_there(vendor: DicomwebVendor, *numbers: int) -> None:
    for number in numbers:
        vendor.add(STUDY, UIDS[number], make_instance(STUDY, number, 200_000), series=f"{STUDY}.1")


# The way there


async def test_only_what_the_vendor_lacks_is_sent_and_all_of_it_is_read(
    vendor: DicomwebVendor, adapter: Dicomweb
) -> None:
    put_there(vendor, 1)
    study = GivenStudy()
    ticket = await adapter.submit(ORDER, study)
    assert vendor.posted == [[UIDS[0], UIDS[2]]]
    assert sorted(ticket.acknowledged or ()) == UIDS
    assert study.given == sum(len(make_instance(STUDY, number, study.size)) for number in range(3))
    again = await adapter.submit(ORDER, GivenStudy())
    assert len(vendor.posted) == 1
    assert sorted(again.acknowledged or ()) == UIDS


@pytest.mark.parametrize(
    ("failed", "status", "kind"),
    [
        ({UIDS[1]: 0x0122}, 202, Permanent),
        (dict.fromkeys(UIDS, 0xC000), 409, Permanent),
        ({UIDS[1]: 0xA700, UIDS[2]: 0x0110}, 202, Retryable),
        ({UIDS[1]: 0xA700, UIDS[2]: 0x0122}, 200, Permanent),
    ],
)
async def test_an_answer_is_read_instance_by_instance(
    vendor: DicomwebVendor, adapter: Dicomweb, failed: dict[str, int], status: int, kind: type[Failure]
) -> None:
    vendor.keep = lambda uid: uid not in failed
    vendor.answer = lambda uids: said(uids, failed, status)
    failure = await failing(kind, adapter.submit(ORDER, GivenStudy()))
    assert f"refused {len(failed)} of 3 instances: " in failure.message
    assert UIDS[1] not in failure.message


async def test_a_known_instance_is_as_good_as_stored(vendor: DicomwebVendor, adapter: Dicomweb) -> None:
    vendor.answer = lambda uids: said(uids, {UIDS[1]: 0x0111}, 202)
    assert sorted((await adapter.submit(ORDER, GivenStudy())).acknowledged or ()) == UIDS


async def test_what_an_answer_passes_over_is_looked_for(vendor: DicomwebVendor, adapter: Dicomweb) -> None:
    vendor.answer = lambda uids: web.Response(status=200)
    assert sorted((await adapter.submit(ORDER, GivenStudy())).acknowledged or ()) == UIDS
    vendor.files.clear()
    vendor.keep = lambda uid: uid != UIDS[1]
    failure = await failing(Retryable, adapter.submit(ORDER, GivenStudy()))
    assert failure.message == "the vendor took 3 instances and doesn't list 1 of them"
    assert isinstance(failure, Retryable)
    assert failure.uncertain
    vendor.keep = lambda uid: True
    await adapter.submit(ORDER, GivenStudy())
    assert vendor.posted[-1] == [UIDS[1]]


async def test_an_empty_list_of_failures_is_none(vendor: DicomwebVendor, adapter: Dicomweb) -> None:
    vendor.answer = lambda uids: said(uids, {}, 200)
    await adapter.submit(ORDER, GivenStudy())
    vendor.files.clear()
    vendor.answer = lambda uids: web.Response(status=409, text="no")
    await failing(Permanent, adapter.submit(ORDER, GivenStudy()))


# The way back


async def test_what_another_vendors_job_has_delivered_there_is_no_result(
    vendor: DicomwebVendor, adapter: Dicomweb
) -> None:
    ticket = await adapter.submit(ORDER, GivenStudy())
    theirs = {vendor.finish(STUDY, number=901)}

    async def delivered(uids: Collection[str]) -> set[str]:
        return theirs.intersection(uids)

    assert isinstance(adapter, Sharing)
    assert isinstance(await adapter.poll_among(ticket, delivered), Pending)
    own = vendor.finish(STUDY, number=902)
    finished = await adapter.poll_among(ticket, delivered)
    assert isinstance(finished, Finished)
    assert [pydicom.dcmread(path).SOPInstanceUID for path in finished.dicom] == [own]


async def test_results_are_what_is_new_and_is_asked_for(
    vendor: DicomwebVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options = {"results": {"modalities": ["SR", "SEG"], "series": "^AI"}}
    vendor.page = 2  # it caps its answers
    adapter = vendor.adapter(session, tmp_path)
    ticket = await adapter.submit(ORDER, GivenStudy())

    def add(number: int, modality: str, description: str, series: int) -> str:
        uid = f"{STUDY}.1.{number}"
        data = make_instance(STUDY, number, 3_200)
        vendor.add(STUDY, uid, data, series=f"{SERIES}.{series}", modality=modality, description=description)
        return uid

    add(910, "SC", "AI capture", 1)
    add(911, "SR", "measured by hand", 2)
    assert isinstance(await adapter.poll(ticket), Pending)
    wanted = {add(912, "SR", "AI report", 3), add(913, "SEG", "AI parts", 4), add(914, "SEG", "AI parts", 4)}
    add(915, "CR", "AI parts", 3)  # in a series with results, and none
    finished = await adapter.poll(stored(ticket))
    assert isinstance(finished, Finished)
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in finished.dicom} == wanted
    assert finished.summary == "The vendor returned 2 SEG, 1 SR."
    assert ("GET", f"/wado/studies/{STUDY}/series/{SERIES}.4") in vendor.seen


async def test_results_are_complete_only_once_the_list_held_still(
    vendor: DicomwebVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options = {"quiet": "400ms"}
    adapter = vendor.adapter(session, tmp_path)
    ticket = await adapter.submit(ORDER, GivenStudy())
    vendor.finish(STUDY)
    answer = await adapter.poll(ticket)
    assert isinstance(answer, Pending)
    assert 0 < answer.after <= 0.4
    ticket = stored(answer.ticket)  # type: ignore[arg-type]
    vendor.finish(STUDY, number=901)
    answer = await adapter.poll(ticket)
    assert isinstance(answer, Pending)
    assert answer.note == "2 results came; waiting for more."
    ticket = stored(answer.ticket)  # type: ignore[arg-type]
    still = {**ticket.state, "seen_at": ticket.state["seen_at"] - 1}
    finished = await adapter.poll(type(ticket)(ticket.reference, ticket.acknowledged, still))
    assert isinstance(finished, Finished)
    assert len(finished.dicom) == 2


async def test_what_was_there_before_a_study_grew_is_no_result_of_it(
    vendor: DicomwebVendor, adapter: Dicomweb
) -> None:
    put_there(vendor, 0, 1)
    vendor.finish(STUDY, number=800)
    vendor.faults["submit"] = Fault(die=True)  # the first try
    await failing(Retryable, adapter.submit(ORDER, GivenStudy()))
    vendor.faults.clear()
    early = vendor.finish(STUDY, number=899)  # between the tries, of what had arrived
    ticket = await adapter.submit(ORDER, GivenStudy())
    late = vendor.finish(STUDY, number=900)
    finished = await adapter.poll(ticket)
    assert isinstance(finished, Finished)
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in finished.dicom} == {early, late}


async def test_a_result_that_is_made_anew_under_its_uid_once_the_study_grew_is_the_result(
    vendor: DicomwebVendor, adapter: Dicomweb
) -> None:
    put_there(vendor, 0, 1)
    old, same, unknown = (f"{STUDY}.1.{number}" for number in (800, 801, 802))
    for uid, number in ((old, 800), (same, 801)):
        vendor.add(STUDY, uid, make_instance(STUDY, number, 400), series=SERIES, made_at="120000")
    vendor.finish(STUDY, number=802)  # it doesn't say when
    vendor.faults["submit"] = Fault(die=True)  # the first try
    await failing(Retryable, adapter.submit(ORDER, GivenStudy()))
    vendor.faults.clear()
    ticket = stored(await adapter.submit(ORDER, GivenStudy()))
    assert {old, same, unknown} <= set(ticket.state["before"])
    assert isinstance(await adapter.poll(ticket), Pending)
    anew = make_instance(STUDY, 800, 600)
    vendor.add(STUDY, old, anew, series=SERIES, made_at="130000")
    finished = await adapter.poll(ticket)
    assert isinstance(finished, Finished)
    assert [path.read_bytes() for path in finished.dicom] == [anew]
    assert "made 1 of them anew under the UID of an earlier one" in finished.summary


async def test_orthanc_tells_that_a_result_was_made_anew(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    images = [make_image("1.2.3.410", "1.2.3.410.1", f"1.2.3.410.9.{n}", number=n) for n in range(3)]

    result = make_image("1.2.3.410", "1.2.3.410.7", "1.2.3.410.8", number=50)
    result.InstanceCreationDate, result.InstanceCreationTime = "20260101", "120000"
    with orthanc(tmp_path / "orthanc", OverwriteInstances=True) as overwriting:

        def upload(name: str, dataset: pydicom.Dataset) -> None:
            path = tmp_path / name
            path.write_bytes(encode(dataset))
            overwriting.upload([path])

        adapter = Dicomweb(
            Options.model_validate({"url": overwriting.dicomweb, "quiet": "0s"}), session, tmp_path / "work"
        )
        (tmp_path / "work").mkdir()
        for dataset in images[:2]:
            upload("image.dcm", dataset)
        upload("result.dcm", result)
        ticket = stored(await adapter.submit(Order("job-1", "trauma", "1.2.3.410"), Files(images)))
        assert isinstance(await adapter.poll(ticket), Pending)
        result.InstanceCreationTime = "130000"
        upload("result.dcm", result)
        finished = await adapter.poll(ticket)
    assert isinstance(finished, Finished)
    [path] = finished.dicom
    assert pydicom.dcmread(path).InstanceCreationTime == "130000"


async def test_a_study_that_was_looked_at_before_has_its_results_already(
    vendor: DicomwebVendor, adapter: Dicomweb
) -> None:
    put_there(vendor, 0, 1, 2)
    vendor.finish(STUDY)
    finished = await adapter.poll(await adapter.submit(ORDER, GivenStudy()))
    assert isinstance(finished, Finished)
    assert len(finished.dicom) == 1


async def test_a_vendor_that_finds_nothing_may_return_nothing(
    vendor: DicomwebVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options = {"empty_after": "10m"}
    adapter = vendor.adapter(session, tmp_path)
    ticket = await adapter.submit(ORDER, GivenStudy())
    assert isinstance(await adapter.poll(ticket), Pending)
    state = {**ticket.state, "since": ticket.state["since"] - 601}
    finished = await adapter.poll(type(ticket)(ticket.reference, ticket.acknowledged, state))
    assert isinstance(finished, Finished)
    assert finished.empty


@pytest.mark.parametrize("harm", ["cut", "garbled", "short", "less", "large"])
async def test_a_result_that_is_not_whole_is_tried_again(
    vendor: DicomwebVendor, session: aiohttp.ClientSession, tmp_path: Path, harm: str
) -> None:
    if harm == "large":
        vendor.options = {"most_result_bytes": 2_000}
    adapter = vendor.adapter(session, tmp_path)
    ticket = await adapter.submit(ORDER, GivenStudy())
    uid = vendor.finish(STUDY)
    told, data = vendor.files[uid]
    if harm == "cut":
        vendor.cut = lambda body: body[:-6]
    elif harm == "garbled":
        vendor.files[uid] = (told, b"\0" * 400)
    elif harm == "short":
        vendor.files[uid] = (told, data[:-100])
    elif harm == "less":
        vendor.cut = lambda body: b"--B0UNDARY--\r\n"
    failure = await failing(Retryable, adapter.poll(ticket))
    assert not failure.message.endswith(".")
    assert STUDY not in failure.message


async def test_results_may_lie_on_another_server(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    front, back = DicomwebVendor(), DicomwebVendor()
    try:
        await front.start()
        await back.start()
        front.options = {"results_url": back.url}
        adapter = front.adapter(session, tmp_path)
        back.finish(STUDY, number=700)
        ticket = await adapter.submit(ORDER, GivenStudy())
        assert isinstance(await adapter.poll(ticket), Pending)
        back.finish(STUDY)
        finished = await adapter.poll(ticket)
        assert isinstance(finished, Finished)
        assert len(finished.dicom) == 1
        assert (await adapter.check()).ok
        back.faults["find"] = Fault(404)
        health = await adapter.check()
        assert not health.ok
        assert health.sentence.startswith("The vendor's results server has no DICOMweb at its url (404).")
    finally:
        await front.stop()
        await back.stop()


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"url": "https://vendor", "results": {"series": "("}})
    with pytest.raises(ValidationError):
        Options.model_validate({"url": "https://vendor", "resultz": {}})
    shown = repr(Options.model_validate({"url": "https://v", "token": "t0k", "headers": {"X": "k3y"}}))
    assert "t0k" not in shown
    assert "k3y" not in shown


# A real server


class Files:
    """A study of files, as an archive gives it."""

    def __init__(self, datasets: list[pydicom.Dataset]) -> None:
        self.data = {str(each.SOPInstanceUID): encode(each) for each in datasets}
        self.headers = [
            Header(
                str(each.StudyInstanceUID),
                str(each.SeriesInstanceUID),
                str(each.SOPInstanceUID),
                str(each.SOPClassUID),
                str(each.file_meta.TransferSyntaxUID),
                str(each.Modality),
            )
            for each in datasets
        ]
        self.study_instance_uid = self.headers[0].study_instance_uid
        self.promised = len(self.headers)

    def headings(self) -> AsyncIterator[File]:
        return self.instances()

    async def acknowledge(self, sop_instance_uid: str) -> None:
        raise AssertionError(sop_instance_uid)

    async def begin_anew(self) -> None:
        raise AssertionError("it is sent whole")

    async def instances(self) -> AsyncIterator[File]:
        for header in self.headers:
            yield File(header, self.data[header.sop_instance_uid])


class File:
    def __init__(self, header: Header, data: bytes) -> None:
        self.header = header
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 4096):
            yield self._data[at : at + 4096]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc"), password="a-password") as running:
        yield running


async def test_orthanc_takes_a_study_and_returns_what_is_new_in_it(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    images = [make_image("1.2.3.400", f"1.2.3.400.{n % 2}", f"1.2.3.400.9.{n}", number=n) for n in range(5)]
    study, order = Files(images), Order("job-1", "trauma", "1.2.3.400")
    given: dict[str, Any] = {
        "url": running.dicomweb,
        "username": USER,
        "password": "a-password",
        "quiet": "0s",
    }
    given["results"] = {"series": "AI result"}
    adapter = Dicomweb(Options.model_validate(given), session, tmp_path)
    assert (await adapter.check()).ok
    assert await adapter.find(order) is None
    early = tmp_path / "early.dcm"
    early.write_bytes(study.data[study.headers[2].sop_instance_uid])
    running.upload([early])

    ticket = stored(await adapter.submit(order, study))
    assert set(ticket.acknowledged or ()) == study.data.keys()
    assert running.sop_instance_uids() >= study.data.keys()
    found = await adapter.find(order)
    assert found is not None
    assert set(found.acknowledged or ()) == study.data.keys()
    assert isinstance(await adapter.poll(ticket), Pending)

    result = make_image("1.2.3.400", "1.2.3.400.7", "1.2.3.400.8", number=50)
    result.SeriesDescription = "AI result"
    other = make_image("1.2.3.400", "1.2.3.400.6", "1.2.3.400.5", number=51)
    for number, dataset in enumerate((result, other)):
        path = tmp_path / f"made-{number}.dcm"
        path.write_bytes(encode(dataset))
        running.upload([path])
    finished = await adapter.poll(ticket)
    assert isinstance(finished, Finished)
    (path,) = finished.dicom
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(encode(result)).digest()


async def test_orthanc_with_a_wrong_password_needs_a_human(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    given = {"url": running.dicomweb, "username": USER, "password": "wrong-one"}
    adapter = Dicomweb(Options.model_validate(given), session, tmp_path)
    failure = await failing(NeedsHuman, adapter.find(Order("job-1", "trauma", OTHER_STUDY)))
    assert "wrong-one" not in failure.message + failure.advice
    assert not (await adapter.check()).ok
