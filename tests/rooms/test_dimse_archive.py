"""Archives that speak DIMSE: an Orthanc that checks who asks, dcmtk's archive, and peers that misbehave."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from gateway.archives.dimse import DimseArchive
from gateway.contract import NeedsHuman, Retryable
from gateway.dicom.arrival import Watch
from gateway.dicom.association import associated, context, exchange
from gateway.dicom.peer import Limits
from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_instance, make_study, write_study
from tests.peers.dimse import AET, Service, by_uid, bytes_of, content, head, service
from tests.peers.orthanc import Orthanc, orthanc
from tests.peers.ports import free_port


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    peers = {"ORTHANC": "127.0.0.1", "DCMQRSCP": "127.0.0.1", "FAKE": "127.0.0.1"}
    with service(tmp_path_factory.mktemp("gateway"), None, peers) as running:
        yield running


@pytest.fixture(scope="module")
def pacs(here: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    known = {"gateway": (AET, "127.0.0.1", here.port)}
    with orthanc(tmp_path_factory.mktemp("orthanc"), modalities=known, check_called_aet=True) as running:
        yield running


def compressed(study: str, series: str) -> Dataset:
    """Encapsulated bytes that nobody can decode: who tries, fails."""
    made = make_instance(study, series, transfer_syntax=JPEGBaseline8Bit)
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelData = encapsulate([b"\xff\xd8" + bytes(range(256)) * 4 + b"\xff\xd9"])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def write(folder: Path, datasets: list[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        (folder / f"{number}.dcm").write_bytes(encode(dataset))
    return sorted(folder.iterdir())


async def fetch(
    archive: DimseArchive, study: str, spool: Path, expected: list[str]
) -> dict[str, tuple[str, Dataset]]:
    retrieval = archive.retrieve(study, expected, spool)
    got = {
        instance.header.sop_instance_uid: content(await bytes_of(instance)) async for instance in retrieval
    }
    assert list(got) == expected
    return got


async def test_a_study_is_found_by_what_a_slide_says(here, pacs, tmp_path):
    paths = write_study(tmp_path / "study", 5, series=2)
    write_study(tmp_path / "other", 1)
    pacs.upload(paths)
    pacs.upload((tmp_path / "other").iterdir())
    first = head(paths[0])
    archive = here.archive(pacs.dicom_port, "ORTHANC")
    (match,) = await archive.find_studies(accession_number=first.AccessionNumber, patient_id=first.PatientID)
    assert match.study_instance_uid == first.StudyInstanceUID
    assert match.instance_count == 5
    listed = await archive.list_instances(match.study_instance_uid)
    assert {instance.sop_instance_uid for instance in listed} == set(by_uid(paths))
    assert {(instance.sop_class_uid, instance.modality) for instance in listed} == {(first.SOPClassUID, "DX")}
    assert await archive.find_studies(accession_number="*") == []
    assert (await archive.check()).ok


@pytest.mark.parametrize("how", ["move", "get"])
async def test_a_study_comes_as_it_is_compressed_or_not(here, pacs, tmp_path, how):
    study = generate_uid()
    series = [generate_uid(), generate_uid()]
    made = [make_instance(study, series[0], number=number, size=256) for number in range(1, 5)]
    paths = write(tmp_path / "study", [*made, compressed(study, series[1])])
    pacs.upload(paths)
    archive = here.archive(pacs.dicom_port, "ORTHANC", retrieve=how)
    wanted = by_uid(paths)
    assert await fetch(archive, study, tmp_path / "spool", list(wanted)) == wanted
    assert here.unplaced == []


@pytest.mark.parametrize("how", ["move", "get"])
async def test_what_comes_without_having_been_listed_is_told(here, pacs, tmp_path, how):
    paths = write_study(tmp_path / "study", 3)
    pacs.upload(paths)
    study = str(head(paths[0]).StudyInstanceUID)
    archive = here.archive(pacs.dicom_port, "ORTHANC", retrieve=how)
    *listed, late = await archive.list_instances(study)
    expected = [each.sop_instance_uid for each in listed]
    for _ in range(2):
        with pytest.raises(Retryable, match="sent instances of the study that it hadn't listed"):
            async for _ in archive.retrieve(study, expected, tmp_path / "spool", listed):
                pass
    again = archive.retrieve(study, expected, tmp_path / "again", [*listed, late])
    assert [each.header.sop_instance_uid async for each in again] == expected


@pytest.mark.parametrize(
    ("how", "options"),
    [("move", []), ("get", []), ("move", ["--propose-lossless"])],
    ids=["move", "get", "mixed"],
)
async def test_dcmtks_archive_gives_a_study_too(here, tmp_path, how, options):
    """Also where it offers a compressed syntax and the plain ones in one context, and can't compress."""
    paths = write_study(tmp_path / "study", 4, series=2)
    with dcmtk.archive(tmp_path / "archive", "DCMQRSCP", {AET: ("127.0.0.1", here.port)}, options) as port:
        assert dcmtk.send(port, paths, calling=AET, called="DCMQRSCP").returncode == 0
        archive = here.archive(port, "DCMQRSCP", retrieve=how)
        wanted = by_uid(paths)
        chosen = list(wanted)[:3]
        study = str(head(paths[0]).StudyInstanceUID)
        assert {instance.sop_instance_uid for instance in await archive.list_instances(study)} == set(wanted)
        got = await fetch(archive, study, tmp_path / "spool", chosen)
        assert got == {uid: wanted[uid] for uid in chosen}


async def test_only_what_is_missing_is_fetched(here, pacs, tmp_path):
    """Found by what the archive no longer has: what lies in the spool isn't asked for again."""
    paths = write_study(tmp_path / "study", 6, series=2)
    study = str(head(paths[0]).StudyInstanceUID)
    pacs.upload(paths)
    archive = here.archive(pacs.dicom_port, "ORTHANC")
    wanted = by_uid(paths)
    await fetch(archive, study, tmp_path / "spool", list(wanted))
    stored = sorted((tmp_path / "spool").glob("*/*.dcm"))
    marked = {path: path.stat().st_ino for path in stored[2:]}
    for path in stored[:2]:
        path.unlink()
    assert await fetch(archive, study, tmp_path / "spool", list(wanted)) == wanted
    assert {path: path.stat().st_ino for path in marked} == marked


async def test_one_instance_is_asked_for_as_of_every_archive(here, pacs, tmp_path):
    paths = write_study(tmp_path / "study", 3)
    pacs.upload(paths)
    second = head(paths[1])
    uids = [str(second.get(word)) for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    retrieval = here.archive(pacs.dicom_port, "ORTHANC").retrieve_instance(*uids, tmp_path / "spool")
    assert [instance.header.sop_instance_uid async for instance in retrieval] == uids[2:]


async def test_an_archive_that_does_not_know_us_is_told_apart(here, pacs, tmp_path):
    paths = write_study(tmp_path / "study", 1)
    pacs.upload(paths)
    study = str(head(paths[0]).StudyInstanceUID)
    stranger = here.archive(pacs.dicom_port, "ORTHANC", calling="STRANGER")
    with pytest.raises((NeedsHuman, Retryable)) as failed:
        await stranger.find_studies(study_instance_uid=study)
    assert "STRANGER" in failed.value.advice
    other_name = here.archive(pacs.dicom_port, "OTHER")
    with pytest.raises(NeedsHuman, match="AE title OTHER"):
        await other_name.find_studies(study_instance_uid=study)
    nobody = here.archive(free_port(), "ORTHANC")
    with pytest.raises(Retryable, match="can't be reached"):
        await nobody.find_studies(study_instance_uid=study)
    assert not (await nobody.check()).ok


async def test_a_refusal_is_heard_though_it_comes_before_we_have_turned_round(here, pacs):
    refused = threading.Event()
    handlers: list[Any] = [
        (evt.EVT_REQUESTED, lambda _: refused.wait(60)),
        (evt.EVT_CONN_CLOSE, lambda _: refused.set()),
    ]
    peer = here.peer(pacs.dicom_port, "OTHER")

    def ask(watch: Watch) -> None:
        with associated(peer, [context(Verification)], "asking", watch, handlers=handlers):
            pytest.fail("it takes us")

    with pytest.raises(NeedsHuman, match="AE title OTHER"):
        await exchange(ask, 60)


# -- peers that misbehave ---------------------------------------------------------------------------------


class Fake:
    """An archive that sends as much of its study as it is let, and remembers what it was asked."""

    def __init__(self, destination: int) -> None:
        self.study = list(make_study(4, series=2))
        self.destination = destination
        self.asked: list[Dataset] = []
        self.sends = 4
        self.hangs = threading.Event()
        self.hangs.set()

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        series = event.identifier.get("SeriesInstanceUID")
        told = set()
        for dataset in self.study:
            uid = dataset.SeriesInstanceUID if level == "SERIES" else dataset.SOPInstanceUID
            if uid in told or (level == "IMAGE" and dataset.SeriesInstanceUID != series):
                continue
            told.add(uid)
            answer = Dataset()
            for keyword in (
                "StudyInstanceUID",
                "SeriesInstanceUID",
                "SOPInstanceUID",
                "SOPClassUID",
                "Modality",
            ):
                setattr(answer, keyword, dataset[keyword].value)
            yield 0xFF00, answer

    def move(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        self.asked.append(asked)
        uids = asked.get("SOPInstanceUID", "")
        uids = [uids] if isinstance(uids, str) else list(uids)
        chosen = [dataset for dataset in self.study if not uids[0] or dataset.SOPInstanceUID in uids]
        yield "127.0.0.1", self.destination
        yield len(chosen)
        for number, dataset in enumerate(chosen):
            self.hangs.wait(30)
            if number == self.sends:
                yield 0xA702, None
                return
            yield 0xFF00, dataset


@contextmanager
def fake_archive(fake: Fake) -> Iterator[int]:
    entity = AE("FAKE")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.requested_contexts = [build_context(fake.study[0].SOPClassUID, "1.2.840.10008.1.2.1")]
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, fake.find), (evt.EVT_C_MOVE, fake.move)]
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        fake.hangs.set()
        server.shutdown()


async def test_a_move_that_fails_in_part_is_completed_by_the_rest(here, tmp_path):
    fake = Fake(here.port)
    fake.sends = 3
    wanted = [str(dataset.SOPInstanceUID) for dataset in fake.study]
    study = str(fake.study[0].StudyInstanceUID)
    with fake_archive(fake) as port:
        archive = here.archive(port, "FAKE")
        with pytest.raises(Retryable, match=r"of 4 instances asked for, the archive pacs sent 3.*1 failed"):
            await fetch(archive, study, tmp_path / "spool", wanted)
        await fetch(archive, study, tmp_path / "spool", wanted)
    assert [keys.QueryRetrieveLevel for keys in fake.asked] == ["STUDY", "IMAGE"]
    assert fake.asked[1].SOPInstanceUID == wanted[3]


async def test_an_association_that_hangs_ends_within_its_limits_and_keeps_what_came(here, tmp_path):
    fake = Fake(here.port)
    wanted = [str(dataset.SOPInstanceUID) for dataset in fake.study]
    study = str(fake.study[0].StudyInstanceUID)
    with fake_archive(fake) as port:
        archive = here.archive(port, "FAKE", limits=Limits(60, 60, 1.5, 60, 60))
        fake.sends = 2
        with pytest.raises(Retryable):
            await fetch(archive, study, tmp_path / "spool", wanted)
        fake.hangs.clear()
        async with asyncio.timeout(50):
            with pytest.raises(Retryable, match="in time"):
                await fetch(archive, study, tmp_path / "spool", wanted)
        fake.hangs.set()
        fake.sends = 4
        await fetch(archive, study, tmp_path / "spool", wanted)
    assert len(fake.asked) >= 3
    assert here.unplaced == []


async def test_who_listens_and_never_answers_holds_nobody_up(here):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        archive = here.archive(listener.getsockname()[1], "FAKE", limits=Limits(1, 1, 1, 5, 5))
        async with asyncio.timeout(30):
            with pytest.raises(Retryable, match="did not answer in time"):
                await archive.find_studies(accession_number="A1")


async def test_a_cancelled_retrieval_lets_go(here, tmp_path):
    fake = Fake(here.port)
    fake.hangs.clear()
    wanted = [str(dataset.SOPInstanceUID) for dataset in fake.study]
    study = str(fake.study[0].StudyInstanceUID)
    with fake_archive(fake) as port:
        archive = here.archive(port, "FAKE")
        task = asyncio.create_task(fetch(archive, study, tmp_path / "spool", wanted))
        async with asyncio.timeout(20):
            while not fake.asked:
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            while here.awaited._expected:  # noqa: SLF001
                await asyncio.sleep(0.02)
