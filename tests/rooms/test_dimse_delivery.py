"""Results into archives by C-STORE: with storage commitment where it is offered, else listed afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, RLELossless
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from gateway.contract import NeedsHuman, Retryable
from gateway.delivery.commitment import Commitments
from gateway.delivery.destinations import ByCStore
from gateway.delivery.dimse import store
from gateway.delivery.dimse import store as deliver
from gateway.delivery.readback import THERE, Standing
from gateway.dicom.peer import Limits
from gateway.dicom.storing import NO_SUCH_CLASS, NO_SUCH_SYNTAX
from gateway.jobs.presence import Presence
from gateway.jobs.store import Store
from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, write_study
from tests.peers.dimse import AET, Service, by_uid, head, service
from tests.peers.orthanc import Orthanc, orthanc


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    peers = {"ORTHANC": "127.0.0.1", "FAKE": "127.0.0.1"}
    with service(tmp_path_factory.mktemp("gateway"), None, peers) as running:
        yield running


@pytest.fixture(scope="module")
def pacs(here: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    known = {"gateway": {"AET": AET, "Host": "127.0.0.1", "Port": here.port, "AllowFind": False}}
    with orthanc(tmp_path_factory.mktemp("orthanc"), check_called_aet=True, DicomModalities=known) as running:
        yield running


def results(folder: Path, count: int = 3) -> tuple[list[Path], str]:
    paths = write_study(folder / "results", count)
    return paths, str(head(paths[0]).StudyInstanceUID)


async def test_orthanc_commits_itself_on_an_association_of_its_own(here, pacs, tmp_path):
    """It answers no C-FIND here, so that only its report can have convinced us."""
    paths, study = results(tmp_path)
    peer = here.peer(pacs.dicom_port, "ORTHANC")
    for _ in range(2):  # sent again, it is no worse
        stored = await store(peer, paths, study, here.commitments, same_association=0.2)
        assert (stored.count, stored.remarks) == (3, ())
    assert pacs.sop_instance_uids() >= set(by_uid(paths))


async def test_what_an_archive_has_already_under_a_uid_is_told_from_what_it_lacks(here, tmp_path):
    """By C-STORE it would say that all is well, and keep its old object."""
    paths, study = results(tmp_path)
    known = {"gateway": {"AET": AET, "Host": "127.0.0.1", "Port": here.port}}
    with orthanc(tmp_path / "orthanc", DicomModalities=known) as running:
        keeper = ByCStore(here.archive(running.dicom_port, "ORTHANC"), here.commitments)
        assert list((await keeper.look(paths, study)).values()) == [Standing.MISSING] * 3
        assert (await keeper.store(paths[:2], study)).count == 2
        image = dcmread(paths[1])
        image.PixelData = bytes(len(image.PixelData))
        paths[1].write_bytes(encode(image))
        assert (await keeper.store(paths[1:2], study)).count == 1, "so it says"
        same, other, lacking = (await keeper.look(paths, study)).values()
        assert same in THERE and (other, lacking) == (Standing.OTHER, Standing.MISSING)
    assert sorted(paths) == sorted((tmp_path / "results").iterdir())


async def test_one_that_answers_no_queries_is_taken_for_empty(here, pacs, tmp_path):
    """Its commitment has to do."""
    paths, study = results(tmp_path, 1)
    keeper = ByCStore(here.archive(pacs.dicom_port, "ORTHANC"), here.commitments)
    assert list((await keeper.look(paths, study)).values()) == [Standing.MISSING]


async def test_what_an_archive_takes_is_stored_and_the_rest_told(here, tmp_path):
    paths, study = results(tmp_path)
    packed = dcmread(paths[1])
    packed.compress(RLELossless)
    packed.save_as(paths[1])
    uid = str(packed.SOPInstanceUID)
    known = {"gateway": {"AET": AET, "Host": "127.0.0.1", "Port": here.port}}
    plain = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]
    folder = tmp_path / "orthanc"
    with orthanc(folder, DicomModalities=known, AcceptedTransferSyntaxes=plain) as running:
        stored = await store(here.peer(running.dicom_port, "ORTHANC"), paths, study, here.commitments)
        assert (stored.count, stored.not_taken) == (2, {uid: NO_SUCH_SYNTAX})
        assert running.sop_instance_uids() == set(by_uid(paths)) - {uid}


async def test_a_kind_refused_by_status_is_no_failure_either(here, tmp_path):
    paths, study = results(tmp_path, 2)
    with archive(Fake(here, [0x0000, 0x0122], commits=True)) as port:
        stored = await store(here.peer(port, "FAKE"), paths, study, here.commitments)
    assert stored.count == 1 and list(stored.not_taken.values()) == [0x0122]


async def test_a_report_whose_kind_an_archive_does_not_negotiate_is_no_failure(here, tmp_path):
    """Alone on its association, and the archive takes nothing but what would be sent instead."""
    (report,), study = results(tmp_path, 1)
    dataset = dcmread(report)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    report.write_bytes(encode(dataset))
    profile = tmp_path / "storescp.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LittleEndianImplicit\n"
        "[[PresentationContexts]]\n[Older]\nPresentationContext1 = ComprehensiveSRStorage\\Plain\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = Older\n"
    )
    with dcmtk.receiver(tmp_path / "stored", options=["-xf", str(profile), "Default"]) as port:
        stored = await store(here.peer(port, "STORESCP"), [report], study, here.commitments)
    assert (stored.count, stored.not_taken) == (0, {str(dataset.SOPInstanceUID): NO_SUCH_CLASS})


@pytest.mark.parametrize("status", [0x0122, 0x0117, 0xA900, 0xC000])
async def test_of_a_report_that_there_is_in_an_older_form_every_refusal_is_of_its_kind(
    here, tmp_path, status
):
    paths, study = results(tmp_path, 2)
    first, last = (str(head(path).SOPInstanceUID) for path in paths)
    with archive(Fake(here, [status, 0x0000], commits=True)) as port:
        stored = await store(here.peer(port, "FAKE"), paths, study, here.commitments, plainer=[first])
    assert (stored.count, stored.not_taken) == (1, {first: status})
    if status != 0x0122:
        with archive(Fake(here, [0x0000, status])) as port, pytest.raises(NeedsHuman, match="refused 1 of 2"):
            await store(here.peer(port, "FAKE"), paths, study, here.commitments, plainer=[first])
    with archive(Fake(here, [0xA700, 0x0000])) as port, pytest.raises(Retryable, match="out of resources"):
        await store(here.peer(port, "FAKE"), paths, study, here.commitments, plainer=[first, last])


async def test_an_archive_without_commitment_is_asked_what_it_has(here, tmp_path):
    paths, study = results(tmp_path)
    with dcmtk.archive(tmp_path / "archive", "DCMQRSCP", {AET: ("127.0.0.1", here.port)}) as port:
        stored = await store(here.peer(port, "DCMQRSCP"), paths, study, here.commitments)
    assert stored.count == 3
    assert len(list((tmp_path / "archive" / "storage").glob("[!i]*"))) == 3


async def test_one_that_can_only_store_proves_nothing(here, tmp_path):
    paths, study = results(tmp_path)
    with dcmtk.receiver(tmp_path / "stored") as port, pytest.raises(NeedsHuman, match="offers nothing"):
        await store(here.peer(port, "STORESCP"), paths, study, here.commitments)
    assert len(list((tmp_path / "stored").iterdir())) == 3


async def test_what_belongs_to_another_study_is_not_sent(here, pacs, tmp_path):
    paths, _ = results(tmp_path, 1)
    with pytest.raises(NeedsHuman, match="another study"):
        await store(here.peer(pacs.dicom_port, "ORTHANC"), paths, "1.2.3", here.commitments)
    assert not pacs.sop_instance_uids() & set(by_uid(paths))


# -- an archive that does what it is told ------------------------------------------------------------------


class Fake:
    """Answers each C-STORE with the next status; `commits` to all results, or to all but one; `reports` that
    on the `same` association or on one of its own; lists nothing, and so shows whether it was asked."""

    def __init__(
        self, here: Service, statuses: list[int], *, commits: bool | None = None, same: bool = False
    ) -> None:
        self.here = here
        self.statuses = statuses
        self.commits = commits
        self.same = same
        self.answers: list[int] = []

    def take(self, event: Any) -> int:
        return self.statuses.pop(0)

    def find(self, event: Any) -> Iterator[tuple[int, None]]:
        yield from ()

    def act(self, event: Any) -> tuple[int, None]:
        if self.commits is None:
            return 0x0112, None
        threading.Thread(target=self.tell, args=(event.assoc, event.action_information)).start()
        return 0x0000, None

    def tell(self, association: Any, asked: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        done = list(asked.ReferencedSOPSequence)
        if not self.commits:
            lost = done.pop()
            lost.FailureReason = 0x0112
            report.FailedSOPSequence = [lost]
        report.ReferencedSOPSequence = done
        if self.same:
            self._send(association, report)
            return
        entity = AE("FAKE")
        entity.add_requested_context(StorageCommitmentPushModel)
        own = entity.associate(
            "127.0.0.1",
            self.here.port,
            ae_title=AET,
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        self._send(own, report)
        own.release()

    def _send(self, association: Any, report: Dataset) -> None:
        kind = 1 if self.commits else 2
        answer, _ = association.send_n_event_report(
            report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(answer.get("Status"))


@contextmanager
def archive(fake: Fake) -> Iterator[int]:
    entity = AE("FAKE")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, fake.take),
            (evt.EVT_C_FIND, fake.find),
            (evt.EVT_N_ACTION, fake.act),
        ],
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@pytest.mark.parametrize("same", [True, False], ids=["same association", "association of its own"])
async def test_a_report_is_believed_on_whichever_association_it_comes(here, tmp_path, same):
    paths, study = results(tmp_path, 2)
    with archive(Fake(here, [0x0000] * 2, commits=True, same=same)) as port:
        stored = await store(here.peer(port, "FAKE"), paths, study, here.commitments)
    assert stored.count == 2
    with (
        archive(Fake(here, [0x0000] * 2, commits=False, same=same)) as port,
        pytest.raises(NeedsHuman, match="refused 1 of 2 results: it doesn't know it"),
    ):
        await store(here.peer(port, "FAKE"), paths, study, here.commitments)


@pytest.mark.parametrize(
    ("statuses", "failure", "words"),
    [
        ([0x0000, 0xA700], Retryable, "refused 1 of 2 results: it is out of resources"),
        ([0x0000, 0xC000], NeedsHuman, "refused 1 of 2 results: it can't understand it"),
        ([0x0124, 0xA700], NeedsHuman, "refused 2 of 2 results"),
        ([0x0000, 0x0000], Retryable, "took 2 results and doesn't have 2"),
    ],
)
async def test_every_status_is_understood(here, tmp_path, statuses, failure, words):
    """The last one: stored, they say, but neither committed to nor listed."""
    paths, study = results(tmp_path, 2)
    with archive(Fake(here, statuses)) as port, pytest.raises(failure, match=words):
        await store(here.peer(port, "FAKE"), paths, study, here.commitments)


async def test_a_warning_is_a_success_with_a_remark(here, tmp_path):
    paths, study = results(tmp_path, 2)
    with archive(Fake(here, [0x0000, 0xB000], commits=True)) as port:
        stored = await store(here.peer(port, "FAKE"), paths, study, here.commitments)
    assert stored.count == 2
    (remark,) = stored.remarks
    assert "changed some of its attributes" in remark


async def test_a_report_that_another_replica_gets_reaches_the_one_that_asked(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    """Both of one AE title; the archive answers no query, so that its report alone can have convinced us. And
    it is told that its report was taken only if somebody waited for it."""
    async with AsyncExitStack() as stack:
        asking = await stack.enter_async_context(replica(store, database_url, tmp_path / "asking"))
        told = await stack.enter_async_context(replica(store, database_url, tmp_path / "told"))
        paths, study = results(tmp_path, 100)
        fake = Fake(told, [0x0000] * 100, commits=True)
        with archive(fake) as port:
            stored = await deliver(asking.peer(port, "FAKE"), paths, study, asking.commitments)
            assert stored.count == 100
            async with asyncio.timeout(60):
                while not fake.answers:  # which its own thread hears
                    await asyncio.sleep(0.01)
            assert fake.answers == [0x0000]
            nobodys = Dataset()
            nobodys.TransactionUID, nobodys.ReferencedSOPSequence = "1.2.3", []
            await asyncio.to_thread(fake.tell, None, nobodys)
            assert fake.answers == [0x0000, 0x0110]


@asynccontextmanager
async def replica(store: Store, url: str, folder: Path) -> AsyncIterator[Service]:
    """Which hears what replicas tell each other."""
    loop = asyncio.get_running_loop()

    def tell(notices: Sequence[str]) -> None:
        asyncio.run_coroutine_threadsafe(store.tell_replicas(notices), loop)

    commitments, ready = Commitments(tell, patience=10), asyncio.Event()

    async def listening() -> None:
        ready.set()

    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(Presence(url).hold(listening, commitments.hear))
        await ready.wait()
        with service(folder, None, {"FAKE": "127.0.0.1"}, commitments=commitments) as running:
            yield running
        hearing.cancel()


async def test_one_that_hangs_amid_storing_ends_within_its_limits(here, tmp_path):
    paths, study = results(tmp_path, 2)
    release = threading.Event()

    class Hanging(Fake):
        def take(self, event: Any) -> int:
            release.wait(30)
            return 0x0000

    limits = Limits(connect=60, accept=60, answer=1, query=60, transfer=60)
    with archive(Hanging(here, [])) as port:
        try:
            async with asyncio.timeout(30):
                with pytest.raises(Retryable, match="did not answer in time") as failed:
                    await store(here.peer(port, "FAKE", limits=limits), paths, study, here.commitments)
        finally:
            release.set()
    assert failed.value.uncertain
