"""Our storage service: who is let in, what becomes of what is sent; peers that break off, hang or flood."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode as encode_command

from gateway.archives.arrived import ArrivedStudies
from gateway.archives.lookup import Lookup, Wanted
from gateway.dicom.identity import Identity
from gateway.dicom.part10 import dataset_start
from gateway.dicom.peer import Limits
from gateway.intake.incoming import Incoming
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from gateway.settings.tree import Misconfigured
from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_instance, make_study, write_study
from tests.peers.dimse import AET, Service, by_uid, bytes_of, content, head, service

PEERS = {"MODALITY": "127.0.0.1", "ELSEWHERE": "192.0.2.7"}
TRAUMA = {
    "trauma": {
        "display_name": "Trauma",
        "adapter": "vendor",
        "ae_title": "TRAUMA",
        "settle": "300ms",
    }
}
UNCOMPRESSED = UID("1.2.840.10008.1.2.1")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA) as running:
        yield running


@asynccontextmanager
async def settling(incoming: Incoming) -> AsyncIterator[None]:
    task = asyncio.create_task(incoming.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def eventually(look: Any) -> Any:
    async with asyncio.timeout(30):
        while not (seen := await look()):
            await asyncio.sleep(0.05)
        return seen


async def jobs_of(store: Store, study: str) -> list[Job]:
    return await store.find(Filter(study_instance_uid=(study,)))


def kept(here: Service) -> list[Path]:
    return sorted((here.settings.data_dir / "incoming" / "trauma").glob("*/*.dcm"))


def folder_of(here: Service, job: Job) -> Path:
    folder = here.incoming.folder_of(job)
    assert folder is not None
    return folder


@contextmanager
def associated(port: int, sop_class: str, transfer_syntax: str = UNCOMPRESSED) -> Iterator[Any]:
    association: Any = AE("MODALITY").associate(
        "127.0.0.1", port, [build_context(sop_class, transfer_syntax)], "TRAUMA"
    )
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        else:
            association.abort()


def store_request(dataset: Dataset) -> bytes:
    command = Dataset()
    command.CommandGroupLength = 0
    command.AffectedSOPClassUID = dataset.SOPClassUID
    command.CommandField = 1
    command.MessageID = 1
    command.Priority = 0
    command.CommandDataSetType = 1
    command.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    return piece(3, encode_command(command, True, True) or b"")


def piece(control: int, data: bytes) -> bytes:
    """One P-DATA-TF with one value, in the first presentation context."""
    item = pack(">LBB", len(data) + 2, 1, control) + data
    return pack(">BBL", 4, 0, len(item)) + item


# -- who is let in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("STRANGER", AET, "Calling AE Title Not Recognized"),
        ("ELSEWHERE", AET, "Calling AE Title Not Recognized"),
        ("MODALITY", "SOMEONE", "Called AE Title Not Recognized"),
    ],
)
def test_others_are_refused(here, tmp_path, calling, called, reason):
    paths = write_study(tmp_path / "study", 1)
    sent = dcmtk.send(here.port, paths, calling=calling, called=called)
    assert sent.returncode != 0
    assert reason in sent.stdout + sent.stderr
    assert here.unplaced == [] and kept(here) == []


def test_an_instance_that_nobody_waits_for_is_refused_with_a_word(here, tmp_path):
    sent = dcmtk.send(
        here.port, write_study(tmp_path / "study", 1), calling="MODALITY", called=AET, options=["-d"]
    )
    assert "0x0124" in sent.stdout + sent.stderr
    assert "nobody here waits for this study" in sent.stdout + sent.stderr
    assert here.unplaced == []


def test_no_more_associations_than_allowed(tmp_path):
    with service(tmp_path, None, PEERS, applications=TRAUMA, most_associations=1) as here:
        entity = AE("MODALITY")
        entity.add_requested_context("1.2.840.10008.1.1")
        first = entity.associate("127.0.0.1", here.port, ae_title="TRAUMA")
        assert first.is_established
        paths = write_study(tmp_path / "study", 1)
        second = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA")
        assert "Local Limit Exceeded" in second.stdout + second.stderr
        assert first.send_c_echo().Status == 0
        first.release()


@pytest.mark.parametrize("count", [10, 60])
def test_who_connects_and_says_nothing_keeps_nobody_out(tmp_path, count):
    paths = write_study(tmp_path / "study", 2)
    with (
        service(tmp_path / "data", None, PEERS, applications=TRAUMA, most_associations=8) as here,
        ExitStack() as stack,
    ):
        silent = [stack.enter_context(closing(connect(here.port, "127.0.0.1"))) for _ in range(count)]
        for wire in silent[::2]:
            wire.send(b"\1")  # the first byte of a request
        assert dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA").returncode == 0
        assert len(kept(here)) == 2


def test_a_stranger_is_not_listened_to(here):
    """Nobody whom we know has its address: it can't even ask."""
    with closing(connect(here.port, "127.0.0.2")) as wire:
        assert wire.recv(1) == b""


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 30, (source, 0))


def test_two_applications_can_not_be_called_by_one_title(tmp_path):
    twins = {**TRAUMA, "chest": TRAUMA["trauma"]}
    with (
        pytest.raises(Misconfigured, match="TRAUMA is taken by"),
        service(tmp_path, None, {}, applications=twins),
    ):
        pass


# -- what becomes of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sop_class", "transfer_syntax"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", UNCOMPRESSED),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.1.2.4.90"),
        ("1.2.276.0.99.1", "1.2.276.0.99.2"),
    ],
    ids=["computed tomography", "slide in JPEG 2000", "private class and syntax"],
)
def test_every_class_and_syntax_is_kept_bit_by_bit(here, tmp_path, sop_class, transfer_syntax):
    made = make_instance(generate_uid(), generate_uid(), size=300)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = sop_class
    data = encode(made)
    start = dataset_start(data)
    path = tmp_path / "one.dcm"
    path.write_bytes(data.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", _as_element(transfer_syntax), 1))
    with associated(here.port, sop_class, transfer_syntax) as association:
        assert association.send_c_store(path).Status == 0
        assert association.send_c_store(path).Status == 0  # again: as good as new
    (stored,) = kept(here)
    written = stored.read_bytes()
    assert written[dataset_start(written) :] == data[start:]
    assert head(stored).file_meta.TransferSyntaxUID == transfer_syntax
    assert head(stored).file_meta.MediaStorageSOPClassUID == sop_class
    assert stored.stat().st_mode & 0o077 == 0


def _as_element(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return b"UI" + pack("<H", len(value)) + value


async def test_a_study_that_was_sent_becomes_a_job_once_it_is_quiet(store, tmp_path):
    paths = write_study(tmp_path / "study", 6, series=2)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", store, PEERS, applications=TRAUMA) as here:
        for some in (paths[:3], paths[2:]):
            sent = await asyncio.to_thread(dcmtk.send, here.port, some, calling="MODALITY", called="TRAUMA")
            assert sent.returncode == 0
        async with settling(here.incoming):
            (job,) = await eventually(lambda: jobs_of(store, study))
            assert (job.origin, job.application, job.adapter) == ("sent", "trauma", "vendor")
            archive = ArrivedStudies("trauma", here.settings.data_dir)
            found = await Lookup({archive.name: archive}, {}).find([archive.name], Wanted(Identity(study)))
            assert found.study.instance_count == len(found.instances) == 6
            assert found.study.identity.accession_number == head(paths[0]).AccessionNumber
            uids = [instance.sop_instance_uid for instance in found.instances]
            got = {
                instance.header.sop_instance_uid: content(await bytes_of(instance))
                async for instance in archive.retrieve(study, uids)
            }
            assert got == by_uid(paths)

            await asyncio.to_thread(dcmtk.send, here.port, paths, calling="MODALITY", called="TRAUMA")
            await eventually(_is_empty_but(here, job))
            assert [job.id for job in await jobs_of(store, study)] == [job.id]


def _is_empty_but(here: Service, job: Any) -> Any:
    mine = folder_of(here, job)

    async def look() -> bool:
        return list((here.settings.data_dir / "incoming" / "trauma").iterdir()) == [mine]

    return look


async def test_late_instances_bring_the_earlier_ones_along(store, tmp_path):
    paths = write_study(tmp_path / "study", 4)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", store, PEERS, applications=TRAUMA) as here:
        async with settling(here.incoming):
            await asyncio.to_thread(dcmtk.send, here.port, paths[:3], calling="MODALITY", called="TRAUMA")
            await eventually(lambda: jobs_of(store, study))
            await asyncio.to_thread(dcmtk.send, here.port, paths[3:], calling="MODALITY", called="TRAUMA")

            async def both() -> Any:
                jobs = await jobs_of(store, study)
                return jobs if len(jobs) == 2 else None

            jobs = await eventually(both)
            counts = {len(list(folder_of(here, job).iterdir())) for job in jobs}
            assert counts == {3, 4}


async def test_late_instances_of_a_study_whose_job_has_ended_bring_it_along(store, tmp_path):
    paths = write_study(tmp_path / "study", 4)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", store, PEERS, applications=TRAUMA, clean_every=60) as here:
        async with settling(here.incoming):
            await asyncio.to_thread(dcmtk.send, here.port, paths[:3], calling="MODALITY", called="TRAUMA")
            (first,) = await eventually(lambda: jobs_of(store, study))
            await store.cancel(first.id, "somebody")
            await asyncio.to_thread(dcmtk.send, here.port, paths[3:], calling="MODALITY", called="TRAUMA")

            async def second() -> Any:
                jobs = await jobs_of(store, study)
                return [job for job in jobs if job.id != first.id]

            (late,) = await eventually(second)
            assert {path.stem for path in folder_of(here, late).iterdir()} == set(by_uid(paths))


async def test_what_was_acknowledged_outlives_us(store, tmp_path):
    """Ended before the study was quiet, then twice more after its job was born: one job, nothing lost."""
    paths = write_study(tmp_path / "study", 3)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA) as here:
        sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA")
        assert sent.returncode == 0
        settings = here.settings
    for _ in range(3):
        async with settling(Incoming(settings, store)):
            (job,) = await eventually(lambda: jobs_of(store, study))
            await asyncio.sleep(0.6)
    folder = folder_of(here, job)
    assert {path.stem for path in folder.iterdir()} == set(by_uid(paths))
    assert [job.id for job in await jobs_of(store, study)] == [job.id]


async def test_a_folder_that_is_gone_as_we_look_back_hinders_no_other(store, tmp_path):
    paths = write_study(tmp_path / "study", 1)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", store, PEERS, applications=TRAUMA) as here:
        gone = tmp_path / "data" / "incoming" / "TRAUMA" / "1.2.3"
        gone.parent.mkdir(parents=True, exist_ok=True)
        gone.symlink_to(tmp_path / "nowhere")
        async with settling(here.incoming):
            await asyncio.to_thread(dcmtk.send, here.port, paths, calling="MODALITY", called="TRAUMA")
            await eventually(lambda: jobs_of(store, study))


async def test_the_study_goes_with_its_job(store, tmp_path):
    paths = write_study(tmp_path / "study", 1)
    study = str(head(paths[0]).StudyInstanceUID)
    with service(tmp_path / "data", store, PEERS, applications=TRAUMA, clean_every=0) as here:
        async with settling(here.incoming):
            await asyncio.to_thread(dcmtk.send, here.port, paths, calling="MODALITY", called="TRAUMA")
            (job,) = await eventually(lambda: jobs_of(store, study))
            folder = folder_of(here, job)
            assert folder.exists()
            await store.cancel(job.id, "somebody")
            assert (await store.get(job.id)).state == State.CANCELLED

            async def gone() -> bool:
                return not folder.exists()

            await eventually(gone)


# -- peers that break off, hang or flood, and a full disk --------------------------------------------------


async def test_half_an_instance_is_nothing(here):
    (made,) = make_study(1, size=512)
    data = encode(made)
    with associated(here.port, made.SOPClassUID) as association:
        wire = association.dul.socket.socket
        wire.sendall(store_request(made) + piece(0, data[dataset_start(data) : 200_000]))

        async def begun() -> bool:
            return [path.stat().st_size > 190_000 for path in here.unplaced] == [True]

        await eventually(begun)
        wire.shutdown(socket.SHUT_RDWR)

        async def swept() -> bool:
            return not here.unplaced

        await eventually(swept)
    assert kept(here) == []


async def test_who_begins_anew_amid_an_instance_leaves_nothing_of_the_first(here):
    made, other = make_study(2, size=64)
    data, after = encode(made), encode(other)
    with associated(here.port, made.SOPClassUID) as association:
        wire = association.dul.socket.socket
        for _ in range(5):
            wire.sendall(store_request(made) + piece(0, data[dataset_start(data) : 2000]))
        wire.sendall(store_request(other) + piece(2, after[dataset_start(after) :]))

        async def taken() -> bool:
            return [path.stem for path in kept(here)] == [other.SOPInstanceUID] and not here.unplaced

        await eventually(taken)
        staged = str(here.staging.path)
        assert not [
            fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd).startswith(f"{staged}/")
        ]


@pytest.mark.parametrize("uid", [".", "..", "1..2"])
def test_what_is_no_uid_names_no_file(here, tmp_path, uid):
    (made,) = make_study(1)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid
    path = tmp_path / "named.dcm"
    path.write_bytes(encode(made))
    with associated(here.port, made.SOPClassUID) as association:
        assert association.send_c_store(path).Status == 0xC000
    assert kept(here) == [] and here.unplaced == []


def test_an_instance_that_was_cut_off_before_is_refused(here, tmp_path):
    (made,) = make_study(1, size=512)
    path = tmp_path / "cut.dcm"
    path.write_bytes(encode(made)[:-1])
    with associated(here.port, made.SOPClassUID) as association:
        answer = association.send_c_store(path)
    assert (answer.Status, answer.ErrorComment) == (0xC000, "the instance is cut off")
    assert kept(here) == [] and here.unplaced == []


async def test_who_stops_amid_a_message_is_let_go(tmp_path):
    limits = Limits(connect=60, accept=60, answer=1)
    (made,) = make_study(1, size=512)
    data = encode(made)
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA, limits=limits) as here,
        associated(here.port, made.SOPClassUID) as association,
    ):
        wire = association.dul.socket.socket
        wire.sendall(store_request(made) + piece(0, data[dataset_start(data) : 200_000])[:100_000])

        async def let_go() -> bool:
            return not association.is_established and not here.unplaced

        await eventually(let_go)


async def test_a_message_larger_than_agreed_is_not_read(here):
    with associated(here.port, "1.2.840.10008.1.1") as association:
        association.dul.socket.socket.sendall(pack(">BBL", 4, 0, 0xFFFFFFF0))

        async def let_go() -> bool:
            return not association.is_established

        await eventually(let_go)


def test_a_disk_that_fills_up_amid_an_instance(here, tmp_path):
    paths = write_study(tmp_path / "study", 1, size=1024)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    try:
        sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=["-d"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "0xa700" in (sent.stdout + sent.stderr).lower()
    assert here.unplaced == [] and kept(here) == []
    assert dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA").returncode == 0
    assert len(kept(here)) == 1


def test_nothing_is_taken_once_the_disk_is_as_good_as_full(tmp_path):
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA, least_free=2**60) as here:
        paths = write_study(tmp_path / "study", 1)
        sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=["-d"])
        assert "0xa700" in (sent.stdout + sent.stderr).lower()
        assert here.unplaced == []


def test_what_is_no_instance_is_refused(here, tmp_path):
    (made,) = make_study(1)
    whole = encode(made)
    path = tmp_path / "one.dcm"
    path.write_bytes(whole[: dataset_start(whole)] + b"\x08\x00\x05\x00CS\x04\x00none")
    with associated(here.port, made.SOPClassUID) as association:
        assert association.send_c_store(path).Status == 0xC000
    other = encode(make_instance(generate_uid(), generate_uid()))
    path.write_bytes(whole[: dataset_start(whole)] + other[dataset_start(other) :])
    with associated(here.port, made.SOPClassUID) as association:
        assert association.send_c_store(path).Status == 0xA900
    assert here.unplaced == [] and kept(here) == []
