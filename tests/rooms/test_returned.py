"""What a vendor stores with us is its job's, also while others are at the same study or at the same job."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from gateway.archives.awaited import Awaited
from gateway.archives.spool import Spool
from gateway.contract import INBOX, Header, Sender
from gateway.delivery.commitment import Commitments
from gateway.dicom.arrival import Watch
from gateway.dicom.staging import Staging
from gateway.dicom.whole import check_whole
from gateway.intake.dimse import DimseDoor
from gateway.intake.incoming import Incoming
from gateway.intake.returned import Returned
from gateway.jobs.states import State
from gateway.jobs.store import Superseded
from gateway.kit.inbox import look_into
from gateway.settings.sections import Settings
from tests.db.crew import ask_for, bring
from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.dimse import AET


async def at_vendor(store: Any, study: str) -> Any:
    """A job whose vendor has the study, as a worker holds it that looks into the inbox."""
    job, _ = await store.create(ask_for(study_instance_uid=study))
    job = await bring(store, job, State.SUBMITTING)
    job = await store.keep(job, submit_began=True)
    await store.move(job, to=State.ANALYSING)
    (job,) = await store.claim(1, 1, 60, {})
    return job


def made(folder: Path, study: str, uid: str) -> tuple[Header, Path]:
    path = folder / f"{uid}.part"
    path.write_bytes(encode(make_instance(study, "1.2.4", uid)))
    return check_whole(path), path


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "data")
    spool.open()
    return spool


async def test_a_result_is_not_taken_for_what_an_archive_sends_of_the_same_study(store, tmp_path, spool):
    study = generate_uid()
    job = await at_vendor(store, study)
    both = {"kind": "dimse", "host": "127.0.0.1", "port": 1, "ae_title": "VENDOR"}
    settings = Settings(data_dir=tmp_path / "data", dimse={"ae_title": AET}, archives={"theirs": both})
    awaited = Awaited(AET, Staging(tmp_path / "data" / ".arriving", 0))
    returned = Returned(store, {"vendor": [Sender("VENDOR", "127.0.0.1")]}, spool.inbox)
    door = DimseDoor(settings, awaited, Incoming(settings, store), Commitments(), returned)
    port = await asyncio.to_thread(door.start, "127.0.0.1", 0)
    moved = tmp_path / "moved"
    moved.mkdir()
    _, result = made(tmp_path, study, "1.2.5.1")
    _, second = made(tmp_path, study, "1.2.5.2")

    async def send(path: Path) -> str:
        sent = await asyncio.to_thread(dcmtk.send, port, [path], calling="VENDOR", called=AET, options=["-d"])
        return sent.stdout + sent.stderr

    try:
        with awaited.expect(study, moved, frozenset({"1.2.5.2"}), frozenset({"1.2.5.2"}), Watch(60)):
            assert "0x0000" in await send(result)
            assert [path.name for path in (await spool.empty(job.id) / INBOX).iterdir()] == ["1.2.5.1.dcm"]
            await store.cancel(job.id, "me")
            assert "no job here waits" in await send(result), "nor is it let go as one too many"
            assert "0x0000" in await send(second), "a vendor may be an archive as well"
            assert [path.name for path in moved.iterdir()] == ["1.2.5.2.dcm"]
    finally:
        await asyncio.to_thread(door.stop)


async def test_a_worker_that_has_not_seen_a_result_can_not_end_the_wait(store, tmp_path, spool):
    study = generate_uid()
    job = await at_vendor(store, study)
    returned = Returned(store, {"vendor": []}, spool.inbox)
    inbox = look_into(await spool.empty(job.id))
    assert inbox.files == ()
    replies = await asyncio.to_thread(returned.keep, ["vendor"], [made(tmp_path, study, "1.2.5.1")])
    assert [reply.status for reply in replies.values()] == [0]
    with pytest.raises(Superseded):
        await store.move(job, to=State.DELIVERING, received=0)

    async def claimed() -> Any:
        async with asyncio.timeout(20):
            while not (jobs := await store.claim(2, 1, 60, {})):
                await asyncio.sleep(0.1)
            return jobs[0]

    again = await claimed()
    assert again.attempt == job.attempt
    assert len(look_into(await spool.empty(job.id)).files) == 1
    await store.move(again, to=State.DELIVERING, received=1)
    replies = await asyncio.to_thread(returned.keep, ["vendor"], [made(tmp_path, study, "1.2.5.2")])
    assert [reply.status for reply in replies.values()] == [0x0124], "too late, and said so"


async def test_an_upload_is_filed_as_one_and_counts_from_then(store, tmp_path, spool, monkeypatch):
    study = generate_uid()
    job = await at_vendor(store, study)
    returned = Returned(store, {"vendor": []}, spool.inbox)
    upload = [made(tmp_path, study, f"1.2.5.{number}") for number in range(40)]
    for _, path in upload:
        os.utime(path, (0, 0))  # it came over a slow line
    seen = set()
    fill = spool.inbox.fill

    async def look_then_give(delivery: Any) -> Any:
        filled = await fill(delivery)
        give = filled.give

        async def look_round(job_id: Any) -> None:
            seen.add(len(look_into(await spool.empty(job.id)).files))
            await give(job_id)
            seen.add(len(look_into(await spool.empty(job.id)).files))

        filled.give = look_round
        return filled

    monkeypatch.setattr(spool.inbox, "fill", look_then_give)
    stranger = made(tmp_path, generate_uid(), "1.2.6")
    replies = await asyncio.to_thread(returned.keep, ["vendor"], [*upload, stranger])
    assert {uid for uid, reply in replies.items() if reply.status} == {"1.2.6"}
    assert seen == {0, 40}
    assert look_into(await spool.empty(job.id)).still < 3600
    renewed = made(tmp_path, study, "1.2.5.7")
    wanted = renewed[1].read_bytes() + b"\0"
    renewed[1].write_bytes(wanted)
    await asyncio.to_thread(returned.keep, ["vendor"], [renewed])
    inbox = look_into(await spool.empty(job.id))
    assert len(inbox.files) == 40
    assert next(path for path in inbox.files if path.stem == "1.2.5.7").read_bytes() == wanted
    assert not list((tmp_path / "data" / "inbox" / ".filling").glob("*/*"))


async def test_a_vendor_that_returns_results_sends_and_delivers_nothing_else(store, tmp_path, spool):
    study = generate_uid()
    trauma = {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA"}
    settings = Settings(
        data_dir=tmp_path / "data",
        dimse={"ae_title": AET},
        adapters={"vendor": {"kind": "vendor"}},
        departments={"radiology": {"applications": {"trauma": trauma}}},
    )
    awaited = Awaited(AET, Staging(tmp_path / "data" / ".arriving", 0))
    returned = Returned(store, {"vendor": [Sender("VENDOR", "127.0.0.1")]}, spool.inbox)
    door = DimseDoor(settings, awaited, Incoming(settings, store), Commitments(), returned)
    port = await asyncio.to_thread(door.start, "127.0.0.1", 0)
    moved = tmp_path / "moved"
    moved.mkdir()
    _, path = made(tmp_path, study, "1.2.5.1")

    async def send(called: str) -> str:
        sent = await asyncio.to_thread(
            dcmtk.send, port, [path], calling="VENDOR", called=called, options=["-d"]
        )
        return sent.stdout + sent.stderr

    try:
        assert "this AE title may not send studies" in await send("TRAUMA")
        with awaited.expect(study, moved, frozenset({"1.2.5.1"}), frozenset({"1.2.5.1"}), Watch(60)):
            assert "no job here waits" in await send(AET)
        assert list(moved.iterdir()) == []
        assert not (tmp_path / "data" / "incoming" / "trauma").exists()
        await at_vendor(store, study)
        assert "0x0000" in await send(AET)
    finally:
        await asyncio.to_thread(door.stop)


async def test_what_is_no_jobs_goes_with_the_next_process(tmp_path: Path) -> None:
    """As when a user's change of a result was being told to the vendor, and the gateway was killed."""
    script = f"""
import os
from pathlib import Path
from gateway.archives.spool import Spool
print(Spool(Path({str(tmp_path)!r})).aside(), flush=True)
os._exit(9)
"""
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await killed.communicate()
    left = Path(said.decode().strip())
    assert left.is_dir()
    spool = Spool(tmp_path)
    assert await spool.jobs() == []
    spool.open()
    assert not left.exists()
