"""A study of nobody goes to the vendor and back: where only peers, metrics and alerts show it."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.front import Fault
from gateway.simulate.serve import serve
from tests.peers.dicom_samples import encode
from tests.peers.dimse import AET
from tests.peers.gateway import PATIENCE, TOKENS, Hospital, hospital
from tests.peers.ports import free_port


async def canary_of(house: Hospital, adapter: str) -> dict[str, Any]:
    _, told = await house.api("GET", "peers")
    [peer] = [each for each in told["peers"] if (each["kind"], each["name"]) == ("adapters", adapter)]
    return dict(peer["canary"])


async def turns(house: Hospital, state: str, adapter: str = "milvue") -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while (canary := await canary_of(house, adapter))["state"] != state:
            await asyncio.sleep(0.2)
    return canary


async def alerts(url: str) -> list[tuple[str, bool]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT cause, cleared_at IS NULL FROM alerts WHERE cause LIKE 'canary.%'"
        )
        return [(row[0], row[1]) for row in await found.fetchall()]


async def hears(house: Hospital) -> list[bytes]:
    """Whoever follows all that ever happened."""
    told = []
    headers = {"Authorization": f"Bearer {TOKENS['viewer']}", "Last-Event-ID": "0-0"}
    async with house.http.get(f"{house.gateway.url}/api/v1/events", headers=headers) as stream:
        while (line := await stream.content.readline()) not in (b": \n", b""):
            told.append(line)
    return [line for line in told if line.startswith(b"data:")]


def result_of(data: bytes) -> Dataset:
    """A picture of a study, as a vendor would make it."""
    made = pydicom.dcmread(BytesIO(data))
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID = generate_uid()
    return made


class Node:
    """A vendor behind a DICOM node, which stores with `whom` what it makes of each picture."""

    title = "NODE"

    def __init__(self, whom: int) -> None:
        self._whom = whom
        entity = AE(self.title)
        for context in (ComputedRadiographyImageStorage, Verification):
            entity.add_supported_context(context, ExplicitVRLittleEndian)
        entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._take), (evt.EVT_C_ECHO, lambda _: 0)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self._entity, self._server, self.port = entity, server, server.server_address[1]
        self._over = threading.Event()
        self._making: list[threading.Thread] = []

    def _take(self, event: Any) -> int:
        picture = event.dataset
        picture.file_meta = event.file_meta
        written = BytesIO()
        picture.save_as(written, enforce_file_format=True)
        self._making.append(threading.Thread(target=self._return, args=(result_of(written.getvalue()),)))
        self._making[-1].start()
        return 0

    def _return(self, result: Dataset) -> None:
        """Again, until somebody waits for it."""
        while not self._over.wait(0.1):
            association = self._entity.associate("127.0.0.1", self._whom, ae_title=AET)
            taken = association.is_established and association.send_c_store(result)
            association.release()
            if taken and taken.get("Status") == 0:
                return

    def stop(self) -> None:
        self._over.set()
        for thread in self._making:
            thread.join()
        self._server.shutdown()


@pytest.mark.timeout(240)
async def test_it_comes_back_unseen_and_is_missed_when_it_does_not(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["canary"] = {"every": "1s"}
        await house.start()
        well = await turns(house, "ok")
        assert well["seconds"] > 0
        assert (well["whole_way"], well["why"]) == (True, None)
        assert house.milvue.arrivals, "it was really sent"
        _, listed = await house.api("GET", "jobs")
        assert listed["jobs"] == []
        assert not house.archive.stored
        assert await hears(house) == []
        _, named = await house.api("GET", "jobs", params={"application": "canary/milvue"})
        assert "done" in {job["state"] for job in named["jobs"]}, "who asks for them sees them"
        async with house.http.get(f"{house.gateway.url}/metrics") as answer:
            metrics = await answer.text()
        assert 'gateway_canary_ok{adapter="milvue"} 1.0' in metrics
        assert 'gateway_jobs_ended_total{application="canary/milvue"' not in metrics
        assert await alerts(database_url) == []

        house.milvue.front.faults[:] = [Fault(method="POST", path="/v3/studies", status=400)]
        missed = await turns(house, "failing")
        assert missed["why"]
        async with asyncio.timeout(PATIENCE):
            while await alerts(database_url) != [("canary.milvue", True)]:
                await asyncio.sleep(0.2)
        house.milvue.front.faults.clear()
        await turns(house, "ok")
        async with asyncio.timeout(PATIENCE):
            while await alerts(database_url) != [("canary.milvue", False)]:
                await asyncio.sleep(0.2)


async def test_it_comes_back_by_dicomweb_and_by_dimse(tmp_path: Path, database_url: str) -> None:
    """There the result appears in the study; here it is stored with us."""
    port = free_port()
    web, node = ArchiveState(), Node(port)
    runner, at = await serve(simulated.make_app(web, files=[]))
    try:
        async with hospital(tmp_path, database_url) as house:
            awaited = {
                "quiet": "300ms",
                "first_poll": "100ms",
                "slowest_poll": "200ms",
                "canary": {"every": "1s"},
            }
            house.configuration["dimse"] = {"ae_title": AET, "host": "127.0.0.1", "port": port}
            house.configuration["adapters"] |= {
                "web": {"kind": "dicomweb", "url": f"http://127.0.0.1:{at}/dicom-web", **awaited},
                "node": {
                    "kind": "dimse",
                    "host": "127.0.0.1",
                    "port": node.port,
                    "ae_title": "NODE",
                    "calling": AET,
                    **awaited,
                },
            }
            await house.start()
            await house.until(lambda: web.stored, "the study of nobody is with the vendor")
            for data in list(web.stored.values()):
                web.add(encode(result_of(data)))
            for adapter in ("web", "node"):
                well = await turns(house, "ok", adapter)
                assert (well["whole_way"], well["why"]) == (True, None)
            _, listed = await house.api("GET", "jobs")
            assert listed["jobs"] == [] and not house.archive.stored
    finally:
        await runner.cleanup()
        await asyncio.to_thread(node.stop)


async def on(url: str, *statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


async def sent(url: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT id, state FROM jobs WHERE application = 'canary/milvue' ORDER BY created_at"
        )
        return await found.fetchall()


NEVER_FOLLOWED = (
    "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$",
    "CREATE TRIGGER stall BEFORE UPDATE ON canaries FOR EACH ROW"
    " WHEN (NEW.job_id IS NOT NULL AND OLD.job_id IS NULL) EXECUTE FUNCTION stall()",
)
WELL_AGAIN = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE wait_event = 'PgSleep' AND datname = current_database()",
    "DROP TRIGGER stall ON canaries",
)


async def begin_and_die(house: Hospital, url: str) -> Any:
    """As soon as its job is made; which one."""
    house.configuration["adapters"]["milvue"]["canary"] = {"every": "1h"}
    await house.start()
    async with asyncio.timeout(PATIENCE):
        while not (left := await sent(url)):
            await asyncio.sleep(0.1)
    await house.gateway.kill()
    return left[0][0]


async def test_one_whose_sender_died_before_it_was_followed_is_taken_over(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.milvue.front.faults[:] = [Fault(method="POST", path="/v3/studies", status=503)]
        await on(database_url, *NEVER_FOLLOWED)
        left = await begin_and_die(house, database_url)
        await on(database_url, *WELL_AGAIN)
        house.milvue.front.faults.clear()
        await house.start()
        await turns(house, "ok")
        assert await sent(database_url) == [(left, "done")], "the same, and no other"


async def test_one_that_was_given_up_and_lives_on_is_ended_before_the_next(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.milvue.front.faults[:] = [Fault(method="POST", path="/v3/studies", status=503)]
        left = await begin_and_die(house, database_url)
        await on(
            database_url,
            "UPDATE canaries SET job_id = NULL, pending = false, began_at = now() - interval '2 h'",
            "UPDATE jobs SET created_at = created_at - interval '2 h'",
        )
        house.milvue.front.faults.clear()
        await house.start()
        await turns(house, "ok")
        assert [state for _, state in await sent(database_url)] == ["cancelled", "done"]
        assert (await sent(database_url))[0][0] == left


async def test_one_that_is_sent_no_more_leaves_nothing_behind(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.milvue.front.faults[:] = [Fault(method="POST", path="/v3/studies", status=400)]
        house.configuration["adapters"]["milvue"]["canary"] = {"every": "1s"}
        await house.start()
        async with asyncio.timeout(PATIENCE):
            while await alerts(database_url) != [("canary.milvue", True)]:
                await asyncio.sleep(0.1)
        await house.gateway.stop()
        del house.configuration["adapters"]["milvue"]["canary"]
        await house.start()
        async with asyncio.timeout(PATIENCE):
            while await alerts(database_url) != [("canary.milvue", False)]:
                await asyncio.sleep(0.1)
            while not {state for _, state in await sent(database_url)} <= {"cancelled", "failed"}:
                await asyncio.sleep(0.1)
