"""Archives asked in order, over real connections: what is passed over, why, and at what price."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from pydicom.dataset import Dataset

from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.lookup import Found, Lookup, NotYet, Wanted
from gateway.archives.terms import Terms
from gateway.circuits import Circuits
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable, Unsuitable
from gateway.dicom.identity import Identity
from gateway.dicom.web import Limits
from gateway.jobs.store import Store
from gateway.settings.quantities import Hours, Rate
from gateway.settings.sections import Choose
from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.front import Fault
from gateway.simulate.serve import serve
from tests.peers.dicom_samples import encode, make_study
from tests.peers.dimse import AET, service
from tests.peers.orthanc import orthanc
from tests.peers.silence import silent_port

UID = "1.2.826.0.1.3680043.10.777.1"


class Archives:
    """As many as a test needs, and the calls on each."""

    def __init__(self, session: aiohttp.ClientSession, stack: AsyncExitStack) -> None:
        self.known: dict[str, DicomwebArchive] = {}
        self._session = session
        self._stack = stack

    async def add(self, name: str) -> ArchiveState:
        state = ArchiveState()
        runner, port = await serve(simulated.make_app(state, files=[]))
        self._stack.push_async_callback(runner.cleanup)
        self.add_at(name, port)
        return state

    def add_at(self, name: str, port: int, connect: float = 20) -> None:
        url = f"http://127.0.0.1:{port}/dicom-web"
        self.known[name] = DicomwebArchive(name, url, self._session, limits=Limits(connect=connect, read=20))

    def lookup(self, makers: tuple[str, ...] = (), **terms: Terms) -> Lookup:
        return Lookup(self.known, terms, makers)


@pytest.fixture
def calls() -> Counter[int]:
    """Connections begun, by port."""
    return Counter()


@pytest.fixture
async def archives(calls: Counter[int]) -> AsyncIterator[Archives]:
    trace = aiohttp.TraceConfig()

    async def note(session: object, context: object, parameters: aiohttp.TraceRequestStartParams) -> None:
        calls[parameters.url.port or 0] += 1

    trace.on_request_start.append(note)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(trace_configs=[trace]))
        yield Archives(session, stack)


@pytest.fixture
def silence() -> Iterator[int]:
    with silent_port() as port:
        yield port


def fill(state: ArchiveState, study: str = UID, count: int = 2, **changes: object) -> list[str]:
    uids = []
    for dataset in make_study(count, study=study):
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        state.add(encode(dataset))
        uids.append(str(dataset.SOPInstanceUID))
    return uids


def copy(state: ArchiveState, other: ArchiveState) -> None:
    other.instances.update(state.instances)


def by_uid(**more: object) -> Wanted:
    return Wanted(Identity(UID), **more)  # type: ignore[arg-type]


def or_next(**more: object) -> Wanted:
    return by_uid(when_unreachable="next", **more)


async def failing(kind: type[Failure], lookup: Lookup, wanted: Wanted, *names: str) -> Failure:
    with pytest.raises(kind) as caught:
        await lookup.find(names, wanted)
    return caught.value


async def test_each_archive_that_is_passed_over_says_why(archives: Archives, silence: int) -> None:
    archives.add_at("gone", silence, connect=0.3)
    await archives.add("empty")
    tape, vna = await archives.add("tape"), await archives.add("vna")
    tape.manners.availability = "NEARLINE"
    vna.manners.availability = None
    fill(tape)
    copy(tape, vna)
    lookup = archives.lookup(tape=Terms(only_online=True))
    found = await lookup.find(["gone", "empty", "tape", "vna"], or_next())
    assert (found.archive, len(found.listed), len(found.instances)) == ("vna", 2, 2)
    assert found.unasked == ("gone",)
    assert found.remarks == (
        "gone: the archive gone can't be reached while looking for a study",
        "empty: the study isn't there",
        "tape: the study is NEARLINE in tape, and only ONLINE studies are fetched there",
        "vna: doesn't tell availability; taken as ONLINE",
    )
    with pytest.raises(NotYet, match="gone can't be reached") as caught:
        await lookup.find(["gone", "empty"], or_next())
    first, second = caught.value.remarks
    assert first == "gone: the archive gone can't be reached while looking for a study"
    assert second == "empty: the study isn't there"
    failure = await failing(Permanent, lookup, by_uid(), "empty")
    assert failure.message == "no archive has the study (asked: empty)"


async def test_only_who_says_that_it_doesnt_have_the_study_is_passed_over(
    archives: Archives, silence: int
) -> None:
    """A part of it in the PACS must not pass for the whole while the VNA, which has the rest, is away."""
    archives.add_at("gone", silence, connect=0.3)
    vna, pacs = await archives.add("vna"), await archives.add("pacs")
    fill(vna)
    fill(pacs, count=1)
    lookup = archives.lookup()
    for _ in range(3):
        with pytest.raises(NotYet) as caught:
            await lookup.find(["gone", "pacs"], by_uid())
        assert timedelta(seconds=3) < caught.value.at - datetime.now().astimezone() <= timedelta(minutes=1)
        assert caught.value.why == "gone can't be reached"
        assert caught.value.trouble is not None
        assert "Check that the server runs" in caught.value.trouble.advice
    vna.front.faults.append(Fault(path="/dicom-web", status=503))
    failure = await failing(Retryable, lookup, by_uid(), "vna", "pacs")
    assert failure.detail["archives"] == [f"vna: {failure.message}"]
    assert failure.peer == "archives.vna"  # once that is well again, the job goes on by itself
    assert (await lookup.find(["vna", "pacs"], or_next())).unasked == ("vna",)
    # Who has said that it has the study, and then breaks off, isn't passed over by anybody.
    vna.front.faults[0] = Fault(path="/instances", status=503)
    assert "503" in (await failing(Retryable, lookup, or_next(), "vna", "pacs")).message
    vna.front.faults[0] = Fault(path="/dicom-web", status=401)
    await failing(NeedsHuman, lookup, or_next(), "vna", "pacs")
    vna.front.faults.clear()
    assert (await lookup.find(["vna", "pacs"], by_uid())).archive == "vna"


async def test_an_archive_that_is_down_costs_one_connect_limit_not_one_for_each_job(
    archives: Archives, calls: Counter[int], silence: int, store: Store
) -> None:
    archives.add_at("vna", silence, connect=0.3)
    fill(await archives.add("pacs"))
    lookup = Lookup(archives.known, {}, gate=Circuits(store))
    at_once = await asyncio.gather(*(lookup.find(["vna", "pacs"], or_next()) for _ in range(25)))
    assert {found.archive for found in at_once} == {"pacs"}
    before = calls[silence]
    for _ in range(25):
        found = await lookup.find(["vna", "pacs"], or_next())
        assert found.archive == "pacs"
        assert "is not reachable since" in found.remarks[0]
    assert calls[silence] == before


def open_or_closed(*, now: bool) -> Hours:
    hour = timedelta(hours=1)
    begin = datetime.now() - hour if now else datetime.now() + hour
    return Hours.parse(f"{begin:%H:%M}-{begin + 2 * hour:%H:%M}")


async def test_outside_its_hours_an_archive_is_waited_for_unless_it_is_urgent_or_elsewhere(
    archives: Archives,
) -> None:
    vna, pacs = await archives.add("vna"), await archives.add("pacs")
    fill(pacs)
    lookup = archives.lookup(pacs=Terms(hours=open_or_closed(now=False)))
    with pytest.raises(NotYet) as caught:
        await lookup.find(["pacs", "vna"], by_uid())
    opening = caught.value.at
    assert opening.tzinfo is not None
    assert timedelta(0) < opening - datetime.now().astimezone() <= timedelta(hours=1)
    assert f"open again at {opening:%Y-%m-%d %H:%M}" in caught.value.why
    assert caught.value.remarks == (caught.value.why, "vna: the study isn't there")
    assert lookup.opens_at("pacs", urgent=False) == opening
    assert lookup.opens_at("pacs", urgent=True) is None

    assert (await lookup.find(["pacs", "vna"], by_uid(urgent=True))).archive == "pacs"
    open_now = archives.lookup(pacs=Terms(hours=open_or_closed(now=True)))
    assert (await open_now.find(["pacs"], by_uid())).archive == "pacs"
    first = next(iter(pacs.instances))
    vna.instances[first] = pacs.instances[first]
    with pytest.raises(NotYet) as caught:
        await lookup.find(["pacs", "vna"], by_uid())
    assert caught.value.remarks[1] == "vna: lacks 1 of the 2 instances in pacs"
    copy(pacs, vna)
    assert (await lookup.find(["pacs", "vna"], by_uid())).archive == "vna"


async def test_while_an_archive_is_in_trouble_nobody_waits_for_another_ones_hours_alone(
    archives: Archives, silence: int
) -> None:
    archives.add_at("vna", silence, connect=0.3)
    fill(await archives.add("pacs"))
    lookup = archives.lookup(pacs=Terms(hours=open_or_closed(now=False)))
    with pytest.raises(NotYet) as caught:
        await lookup.find(["vna", "pacs"], or_next())
    assert caught.value.at - datetime.now().astimezone() <= timedelta(minutes=5)


async def test_over_its_rate_an_archive_is_passed_over_or_waited_for(archives: Archives) -> None:
    vna, pacs = await archives.add("vna"), await archives.add("pacs")
    fill(vna)
    copy(vna, pacs)
    lookup = archives.lookup(vna=Terms(rate=Rate(3, 3600.0)))
    results = await asyncio.gather(*(lookup.find(["vna", "pacs"], by_uid()) for _ in range(8)))
    assert Counter(found.archive for found in results) == {"vna": 3, "pacs": 5}
    assert "3 studies were fetched within 3600 s already" in results[-1].remarks[0]
    with pytest.raises(NotYet):
        await lookup.find(["vna"], by_uid())
    await lookup.give_back(next(found for found in results if found.archive == "vna"))
    assert (await lookup.find(["vna"], by_uid())).archive == "vna"


async def test_what_no_archive_knows_by_its_uid_is_looked_for_by_accession_number(
    archives: Archives,
) -> None:
    vna, pacs = await archives.add("vna"), await archives.add("pacs")
    fill(vna, "1.2.3.1", AccessionNumber="A1", PatientID="P1")
    fill(pacs, "1.2.3.2", AccessionNumber="A1", PatientID="P2")
    lookup = archives.lookup()

    async def find(uid: str, patient: str) -> Found:
        asked = Identity(uid, accession_number="A1", patient_id=patient)
        return await lookup.find(["vna", "pacs"], Wanted(asked))

    assert (await find("1.2.3.2", "P1")).archive == "pacs"  # not the first that knows the accession number
    found = await find("1.2.3.9", "P2")
    assert (found.archive, found.study.study_instance_uid) == ("pacs", "1.2.3.2")
    assert found.remarks[-1] == "pacs: found by its accession number, not by the study UID that was given"
    assert (await find("", "")).archive == "vna"
    said: dict[str, Any] = {"StudyDate": "20260102", "Modality": "CR", "StudyDescription": "HAND  2 PLANES\n"}
    fill(vna, "1.2.3.3", AccessionNumber="A1", PatientID="P1", **said)
    with pytest.raises(NeedsHuman) as caught:
        await find("", "P1")
    assert caught.value.detail["choices"] == ["1.2.3.1", "1.2.3.3"]
    assert caught.value.said["1.2.3.3"] == "2026-01-02 10:11, CR, HAND 2 PLANES, 1 series, 2 instances"
    assert "HAND" not in f"{caught.value.detail}{caught.value.message}"


@pytest.mark.parametrize("known", ["patient_id", "issuer_of_accession_number", "study_id"])
async def test_of_several_under_one_number_the_one_that_agrees_is_meant(
    archives: Archives, known: str
) -> None:
    """In a regional archive another hospital may give out the same accession number."""
    vna = await archives.add("vna")
    for lab in ("LAB", "XRAY"):
        issuer = Dataset()
        issuer.LocalNamespaceEntityID = lab
        numbers: dict[str, Any] = {"AccessionNumber": "A1", "IssuerOfAccessionNumberSequence": [issuer]}
        fill(vna, f"1.2.3.{len(lab)}", PatientID=f"P-{lab}", StudyID=f"E-{lab}", **numbers)
    values = {"patient_id": "P-XRAY", "issuer_of_accession_number": "XRAY", "study_id": "E-XRAY"}
    lookup = archives.lookup()
    asked = Identity(accession_number="A1", **{known: values[known]})
    assert (await lookup.find(["vna"], Wanted(asked))).study.study_instance_uid == "1.2.3.4"
    failure = await failing(NeedsHuman, lookup, Wanted(Identity(accession_number="A1")), "vna")
    assert failure.detail["choices"] == ["1.2.3.3", "1.2.3.4"]


async def test_a_number_that_is_there_for_another_patient_is_not_told_as_a_study_that_lacks(
    archives: Archives,
) -> None:
    await archives.add("empty")
    fill(await archives.add("vna"), AccessionNumber="A1", PatientID="P1")
    lookup = archives.lookup()
    for uid in ("", "1.2.3.9"):
        mistaken = Wanted(Identity(uid, accession_number="A1", patient_id="P2"))
        failure = await failing(NeedsHuman, lookup, mistaken, "empty", "vna")
        assert failure.message == "the studies under this accession number in vna are of another patient"
        assert failure.advice.startswith("Check the patient id")
        assert "P1" not in str(failure.detail) and "P2" not in str(failure.detail)
    unknown = Wanted(Identity(accession_number="A2", patient_id="P1"))
    assert "no archive has the study" in (await failing(Permanent, lookup, unknown, "empty", "vna")).message


async def test_instances_are_chosen_by_what_the_archive_tells_of_study_series_and_instance(
    archives: Archives,
) -> None:
    vna = await archives.add("vna")
    hand = fill(vna, SeriesDescription="AX hand", BodyPartExamined="HAND")
    foot = fill(vna, SeriesDescription="AX foot", BodyPartExamined="FOOT", PatientComments="odd")
    made = fill(vna, Manufacturer="Milvue")
    scanned = fill(vna, Manufacturer="Milvue", ImageType=["ORIGINAL", "PRIMARY"])
    for uid in made:
        vna.instances[uid].header.ImageType = ["DERIVED", "SECONDARY"]
    asked: list[set[str]] = []

    async def ours(uids: object) -> set[str]:
        asked.append(set(uids))  # type: ignore[call-overload]
        return {foot[0]}

    async def chosen(**choose: object) -> set[str]:
        wanted = by_uid(choose=Choose.model_validate(choose))
        found = await archives.lookup(("Milvue",)).find(["vna"], wanted, ours)
        return {instance.sop_instance_uid for instance in found.instances}

    assert await chosen() == {*hand, foot[1], *scanned}
    assert asked == [{*hand, *foot, *made, *scanned}]
    assert await chosen(series=["^AX"]) == {*hand, foot[1]}
    assert await chosen(tags=["BodyPartExamined = HAND"]) == set(hand)
    assert await chosen(tags=["PatientName =~ ^Sample"]) == {*hand, foot[1], *scanned}
    nothing = await archives.lookup().find(["vna"], by_uid(choose=Choose(modalities=["MR"])))
    with pytest.raises(Unsuitable, match=r"it holds DX; left out: 8 not in choose\.modalities"):
        nothing.check()


async def test_a_rule_keeps_phantoms_of_quality_control_from_being_paid_for(archives: Archives) -> None:
    vna = await archives.add("vna")
    patient = fill(vna, count=2)
    fill(vna, count=1, QualityControlImage="YES")
    wanted = by_uid(choose=Choose.model_validate({"tags": ["QualityControlImage !~ YES"]}))
    found = await archives.lookup().find(["vna"], wanted)
    assert {instance.sop_instance_uid for instance in found.instances} == set(patient)
    assert dict(found.left_out) == {"not QualityControlImage !~ YES": 1}


async def test_an_archive_that_holds_nothing_to_choose_from_doesnt_have_the_study(archives: Archives) -> None:
    """The results of the first analysis lie in the VNA; the images are still in the PACS alone."""
    vna, pacs = await archives.add("vna"), await archives.add("pacs")
    results = fill(vna, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    other = fill(vna, count=1)
    fill(pacs, count=3)
    lookup = archives.lookup(vna=Terms(rate=Rate(1, 3600.0)))

    async def ours(_: object) -> list[str]:
        return other

    for _ in range(2):
        found = await lookup.find(["vna", "pacs"], by_uid(), ours)
        assert (found.archive, len(found.instances)) == ("pacs", 3)
    assert found.remarks[0] == (
        "vna: the study has nothing for this application: it holds DX, SR;"
        f" left out: {len(results)} a result, 1 a result of ours"
    )
    alone = await lookup.find(["vna"], Wanted(Identity(UID, accession_number="SOMEBODY-ELSE")), ours)
    assert (len(alone.listed), alone.remarks) == (3, found.remarks)
    with pytest.raises(Unsuitable, match="left out: 2 a result, 1 a result of ours"):
        alone.check()


async def test_a_study_that_an_archive_has_of_two_patients_is_held(
    tmp_path: Path, archives: Archives
) -> None:
    files = list(make_study(3, study=UID))
    files[1].PatientID = "SOMEBODY-ELSE"
    for number, dataset in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(encode(dataset))
    with orthanc(tmp_path / "orthanc") as running:
        running.upload(tmp_path.glob("*.dcm"))
        archives.add_at("vna", urlsplit(running.url).port or 0)
        for asked in (Identity(UID), Identity(UID, "SOMEBODY-ELSE")):
            failure = await failing(NeedsHuman, archives.lookup(), Wanted(asked), "vna")
            assert failure.message == "vna has the study twice: another patient id"
            assert failure.said["expected"] != failure.said["met"]


async def test_a_real_archive_tells_of_instances_what_rules_are_about_both_ways(
    tmp_path: Path, archives: Archives
) -> None:
    """By DICOMweb and by DIMSE, of the study, the series and the instance."""
    hand = list(make_study(3, study=UID))
    for number, dataset in enumerate(hand):
        dataset.SeriesDescription = "AX hand"
        dataset.ImageType = ["ORIGINAL", "PRIMARY"] if number else ["DERIVED", "SECONDARY"]
        (tmp_path / f"{number}.dcm").write_bytes(encode(dataset))
    keywords = ("PatientName", "StudyID", "SeriesDescription", "Manufacturer", "ImageType", "InstanceNumber")
    with (
        service(tmp_path / "gateway", None, {"ORTHANC": "127.0.0.1"}) as here,
        orthanc(tmp_path / "orthanc", modalities={"gateway": (AET, "127.0.0.1", here.port)}) as running,
    ):
        running.upload(tmp_path.glob("*.dcm"))
        archives.add_at("vna", urlsplit(running.url).port or 0)
        told = []
        for archive in (archives.known["vna"], here.archive(running.dicom_port, "ORTHANC")):
            listed = await archive.list_instances(UID, 3, keywords)
            told.append({instance.sop_instance_uid: instance.attributes for instance in listed})
            for instance in listed:
                assert instance.attributes["PatientName"][0].startswith("Sample")
                assert instance.attributes["SeriesDescription"] == ("AX hand",)
                assert (instance.attributes["Manufacturer"], instance.attributes["StudyID"]) == (
                    ("Samples",),
                    ("S1",),
                )
                assert instance.attributes["InstanceNumber"][0] in ("1", "2", "3")
        assert told[0] == told[1]
        derived = str(hand[0].SOPInstanceUID)
        assert told[0][derived]["ImageType"] == ("DERIVED", "SECONDARY")
        wanted = by_uid(choose=Choose.model_validate({"tags": ["ImageType !~ DERIVED"]}))
        found = await archives.lookup().find(["vna"], wanted)
        assert derived not in {instance.sop_instance_uid for instance in found.instances}
        assert len(found.instances) == 2


@pytest.mark.parametrize("pages", [True, False])
async def test_an_archive_that_caps_its_answers_is_read_whole_or_looked_at_again(
    archives: Archives, pages: bool
) -> None:
    """However few it tells at once; and it gives its instances though it knows no transfer-syntax=*."""
    vna = await archives.add("vna")
    for dataset in make_study(7):
        vna.add(encode(dataset))
    uid = str(dataset.StudyInstanceUID)
    vna.manners = vna.manners.model_copy(update={"most": 3, "pages": pages, "asterisk": False})
    if not pages:
        with pytest.raises(Retryable, match="only a part"):
            await archives.lookup().find(["vna"], Wanted(Identity(uid)))
        return
    found = await archives.lookup().find(["vna"], Wanted(Identity(uid)))
    assert len(found.instances) == 7
    sent = [each async for each in archives.known["vna"].retrieve(uid)]
    assert len(sent) == 7
