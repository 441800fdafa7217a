"""What is sent to us, in a bucket that several machines share: as safe there as in a folder."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom.uid import generate_uid

from gateway.archives.bucket import Bucket
from gateway.archives.inbox import SharedInbox
from gateway.archives.shared import BroughtObjects, SharedStudies
from gateway.archives.spool import Spool
from gateway.contract import INBOX, Header, NeedsHuman, NotLetIn, Unreachable
from gateway.dicom.whole import check_whole
from gateway.intake.returned import Returned
from gateway.intake.shared_incoming import SharedIncoming
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.arrivals import Arrival
from gateway.kit.inbox import look_into
from gateway.loops import beside
from gateway.settings.sections import S3Spool, Settings
from gateway.watch.causes import Troubles
from gateway.watch.figures import Figures, expose
from tests.db.crew import ask_for, bring
from tests.peers.certificates import Authority
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.s3 import S3Server, s3

PATIENCE = 60.0
OURS = UUID(int=1)


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3() as running:
        yield running


def bucket_of(server: S3Server, installation: UUID = OURS, **changed: Any) -> Bucket:
    async def ours() -> UUID:
        return installation

    return Bucket(S3Spool.model_validate(server.settings | changed), ours)


def settings_of(folder: Path, server: S3Server, settle: str = "300ms") -> Settings:
    trauma = {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA", "settle": settle}
    return Settings(
        data_dir=folder / uuid4().hex,
        spool=server.settings,
        adapters={"vendor": {"kind": "vendor"}},
        departments={"radiology": {"applications": {"trauma": trauma}}},
    )


def made(folder: Path, study: str, uid: str, **shape: Any) -> tuple[Header, Path]:
    path = folder / f"{uuid4().hex}.part"
    path.write_bytes(encode(make_instance(study, "1.2.4", uid, **shape)))
    return check_whole(path), path


@asynccontextmanager
async def machines(
    count: int, folder: Path, server: S3Server, store: Store, settle: str = "300ms"
) -> AsyncIterator[list[SharedIncoming]]:
    """Each makes jobs of what came to any of them."""
    settings = settings_of(folder, server, settle)
    async with AsyncExitStack() as stack:
        made = [SharedIncoming(settings, store, bucket_of(server), clean_every=0.3) for _ in range(count)]
        for each in made:
            await stack.enter_async_context(beside(each.run()))
        yield made


async def take(machine: SharedIncoming, *files: tuple[Header, Path]) -> None:
    for header, path in files:
        await asyncio.to_thread(machine.keep, "trauma", header, path)


async def jobs_of(store: Store, study: str, count: int) -> list[Job]:
    async with asyncio.timeout(PATIENCE):
        while len(jobs := await store.sent_of({study})) < count:
            await asyncio.sleep(0.1)
    return sorted(jobs, key=lambda job: job.created_at)


async def until_empty(server: S3Server) -> None:
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(server.objects, "gateway/arrived"):
            await asyncio.sleep(0.1)


async def test_a_large_object_goes_in_parts_and_streams_back(server: S3Server, tmp_path: Path) -> None:
    bucket, name, path = bucket_of(server), uuid4(), tmp_path / "large"
    said = os.urandom(19_000_000)
    path.write_bytes(said)
    await bucket.put(name, path)
    assert sum("partNumber" in query for _, query in server.calls) == 3
    pieces = [piece async for piece in bucket.chunks(name, len(said))]
    assert len(pieces) == 3 and b"".join(pieces) == said
    await bucket.fetch(name, len(said), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == said
    with bucket.open(name, len(said)) as file:
        file.seek(8_000_000)
        assert await asyncio.to_thread(file.read, 1000) == said[8_000_000:8_001_000]
    await bucket.remove([name, uuid4()])
    assert server.objects("gateway/arrived") == []


async def test_the_check_puts_gets_and_deletes_and_says_in_a_sentence_what_is_wrong(
    server: S3Server, tmp_path: Path
) -> None:
    good = await bucket_of(server).check()
    assert good.ok and server.objects() == []
    for methods in ({"PUT"}, {"GET"}, {"POST", "DELETE"}):
        server.refusing = methods
        refused = await bucket_of(server).check()
        assert not refused.ok and "refuses our credentials" in refused.sentence
        assert "patient" not in refused.sentence
    server.refusing = set()
    missing = await bucket_of(server, bucket="nobodys-bucket").check()
    assert not missing.ok and "bucket isn't there" in missing.sentence
    server.stop()
    away = await bucket_of(server).check()
    assert not away.ok and "can't be reached" in away.sentence
    authority = Authority(tmp_path)
    with s3(authority.certify("s3")) as secured:
        distrusted = await bucket_of(secured).check()
        assert not distrusted.ok and "certificate" in distrusted.sentence
        trusted = await bucket_of(secured, ca=str(authority.path)).check()
        assert "bucket isn't there" in trusted.sentence, "who it is is believed; it has no bucket yet"


async def test_a_bucket_is_of_one_database(server: S3Server) -> None:
    for _ in range(2):
        await bucket_of(server).claim()
    with pytest.raises(NeedsHuman, match="another database"):
        await bucket_of(server, uuid4()).claim()
    await bucket_of(server, uuid4(), prefix="another").claim()


async def test_a_study_that_two_machines_took_is_one_job_of_all_of_it_and_then_gone(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    study = generate_uid()
    files = [made(tmp_path, study, f"1.2.5.{number}") for number in range(6)]
    async with machines(2, tmp_path, server, store, "6s") as (first, second):
        await asyncio.gather(take(first, *files[::2]), take(second, *files[1::2]))
        [job] = await jobs_of(store, study, 1)
        archive = SharedStudies("trauma", store, bucket_of(server))
        [match] = await archive.find_studies(study_instance_uid=study)
        assert (match.instance_count, match.study_instance_uid) == (6, study)
        listed = await archive.list_instances(study, keywords=("ImageType",))
        assert {each.sop_instance_uid for each in listed} == {f"1.2.5.{number}" for number in range(6)}
        assert all(each.modality == "DX" and each.attributes["ImageType"] for each in listed)
        came = {}
        async for instance in archive.retrieve(study):
            came[instance.header.sop_instance_uid] = b"".join([piece async for piece in instance.chunks()])
        assert came == {header.sop_instance_uid: path.read_bytes() for header, path in files}
        assert not [name for name in server.objects() if study in name or "1.2.5" in name], (
            "names say nothing"
        )

        await take(first, *files[:3])  # sent again, while its job lives
        async with asyncio.timeout(PATIENCE):
            while len(await asyncio.to_thread(server.objects, "gateway/arrived")) > 6:
                await asyncio.sleep(0.1)
        assert len(await store.sent_of({study})) == 1

        late = made(tmp_path, study, "1.2.5.99")
        await take(second, late)
        _, another = await jobs_of(store, study, 2)
        assert await BroughtObjects(another, store, bucket_of(server)).uids() == {"1.2.5.99"}
        assert len(await archive.list_instances(study)) == 7, "a vendor wants it whole"
        for each in (job, another):
            assert len(server.objects("gateway/arrived")) == 7
            await store.cancel(each.id, "me")
        await until_empty(server)
        assert await store.bytes_arrived() == 0


async def test_an_upload_is_kept_whole_or_not_at_all_and_nothing_while_the_store_is_away(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    study = generate_uid()
    files = [made(tmp_path, study, f"1.2.5.{number}") for number in range(9)]
    async with machines(1, tmp_path, server, store) as [machine]:

        async def upload() -> None:
            await asyncio.to_thread(machine.keep_upload, "trauma", tmp_path, files)

        for trouble in ("broken", "refusing"):
            setattr(server, trouble, {"PUT"})
            with pytest.raises(OSError, match="the spool's store"):
                await upload()
            setattr(server, trouble, set())
        server.stop()
        with pytest.raises(OSError, match="can't be reached"):
            await upload()
        server.start()
        assert await store.bytes_arrived() == 0
        await upload()
        [job] = await jobs_of(store, study, 1)
        assert len(await BroughtObjects(job, store, bucket_of(server)).uids()) == 9


async def test_beyond_what_it_may_hold_no_study_is_taken(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    header, path = made(tmp_path, generate_uid(), "1.2.5.1")
    most = path.stat().st_size * 3 // 2
    machine = SharedIncoming(settings_of(tmp_path, server), store, bucket_of(server, most_bytes=most))
    troubles = [
        Troubles(Settings(data_dir=tmp_path, spool=server.settings | {"most_bytes": each}), store)
        for each in (most, path.stat().st_size)
    ]
    assert [await each.standing() for each in troubles] == [[], []]
    await take(machine, (header, path))
    roomy, full = [await each.standing() for each in troubles]
    assert roomy == [] and [cause.key for cause in full] == ["spool"]
    with pytest.raises(OSError, match="most_bytes"):
        await take(machine, made(tmp_path, generate_uid(), "1.2.5.2"))
    assert len(server.objects("gateway/arrived")) == 1


async def test_what_a_dead_process_left_in_the_bucket_is_removed(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    bucket = bucket_of(server)
    _, path = made(tmp_path, generate_uid(), "1.2.5.1")
    await bucket.put(uuid4(), path)  # and killed before it was noted
    machine = SharedIncoming(settings_of(tmp_path, server, "1h"), store, bucket, nobodys_after=0)
    noted = made(tmp_path, generate_uid(), "1.2.5.2")
    await take(machine, noted)
    async with beside(machine.run()), asyncio.timeout(PATIENCE):
        while len(server.objects("gateway/arrived")) > 1:
            await asyncio.sleep(0.1)
    assert await store.bytes_arrived() == noted[1].stat().st_size


async def test_a_result_that_one_machine_took_is_found_by_another(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    study = generate_uid()
    job, _ = await store.create(ask_for(study_instance_uid=study))
    job = await bring(store, job, State.SUBMITTING)
    job = await store.keep(job, submit_began=True)
    await store.move(job, to=State.ANALYSING)
    taking, working = (
        Spool(tmp_path / name, inbox=SharedInbox(store, bucket_of(server))) for name in ("one", "other")
    )
    for spool in (taking, working):
        spool.open()
    returned = Returned(store, {"vendor": []}, taking.inbox)

    async def keep(*files: tuple[Header, Path]) -> set[int]:
        return {each.status for each in (await asyncio.to_thread(returned.keep, ["vendor"], files)).values()}

    assert look_into(await working.empty(job.id)).files == ()
    assert await keep(made(tmp_path, generate_uid(), "1.2.6.1")) == {0x0124}
    assert server.objects("gateway/arrived") == [], "nobody waits for it"
    results = [made(tmp_path, study, f"1.2.5.{number}") for number in range(5)]
    assert await keep(*results) == {0}
    renewed = made(tmp_path, study, "1.2.5.3", size=80)
    assert await keep(renewed) == {0}
    folder = await working.empty(job.id)
    found = {path.stem: path.read_bytes() for path in (folder / INBOX).iterdir()}
    wanted = {header.sop_instance_uid: path.read_bytes() for header, path in (*results, renewed)}
    assert found == wanted
    assert 0 <= look_into(folder).still < 3600
    server.broken = {"PUT"}
    with pytest.raises(OSError, match="spool's store"):
        await keep(made(tmp_path, study, "1.2.5.7"))
    server.broken = {"GET"}
    with pytest.raises(Unreachable) as away:
        await working.empty(job.id)
    assert away.value.peer == "spool"
    server.broken, server.refusing = set(), {"GET"}
    with pytest.raises(NotLetIn):
        await working.empty(job.id)
    server.refusing = set()
    assert {*await working.jobs()} == {job.id}
    await working.forget(job.id)
    assert server.objects("gateway/arrived") == [] and await working.jobs() == []


async def test_how_full_the_bucket_is_and_what_went_wrong_there_is_measured(
    server: S3Server, store: Store, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, server)
    figures = Figures(settings, store, lambda: "abcdef")
    bucket = bucket_of(server)
    await store.add_arrivals([Arrival(uuid4(), "1.2.3", 12_345, "trauma", "1.2")])

    async def measured() -> dict[tuple[str, ...], float]:
        await figures.collect_all()
        told, _ = expose(figures)
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(told.decode())
            for sample in family.samples
            if sample.name.startswith("gateway_spool_")
        }

    before = await measured()
    assert before["gateway_spool_held_bytes",] == 12_345
    assert before["gateway_spool_most_bytes",] == 10**12
    assert (await bucket.check()).ok
    well = await measured()
    assert well["gateway_spool_last_success_timestamp_seconds",] >= time.time() - PATIENCE
    server.refusing = {"PUT"}
    with pytest.raises(NotLetIn):
        await bucket.put(uuid4(), Path(__file__))
    after = await measured()
    counted = "gateway_spool_failures_total", "opening", "refused"
    assert after[counted] == before.get(counted, 0) + 1
    assert after["gateway_spool_last_failure_timestamp_seconds",] >= time.time() - PATIENCE
    assert after["gateway_spool_held_bytes",] == 12_345
