"""Several gateways on one database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.archives.spool import Spool
from gateway.jobs.store import Store
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import PATIENCE, hospital

pytestmark = pytest.mark.slow


async def test_a_replica_dies_and_the_other_does_its_work(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.milvue.behaviours["*"] = Behaviour(delay=1)
        doomed, survivor = await house.start(), await house.start()
        patients = [house.admit(1) for _ in range(12)]
        urls = [f"{(doomed, survivor)[number % 2].url}/ia/milvue-trauma" for number in range(12)]
        answers = await asyncio.gather(
            *(
                house.invoke(house.invocation(patient.slide), url=url)
                for patient, url in zip(patients, urls, strict=True)
            )
        )
        assert [status for status, _, _ in answers] == [200] * 12
        await house.until(lambda: house.milvue.arrivals.total() >= 4, "studies are at Milvue")
        await doomed.kill()
        for patient in patients:
            job = await house.job_on(patient.slide, "done")
            assert job["proof"]["stored"] == 2
        assert [house.bytes_arrived(patient) for patient in patients] == [[1]] * 12
        assert [len(house.results_on(patient.slide)) for patient in patients] == [1] * 12


async def test_one_slide_asked_of_two_replicas_is_one_job_and_one_result(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        first, other = await house.start("--only", "intake"), await house.start("--only", "intake")
        patient = house.admit(1)

        async def click(number: int) -> int:
            """Again, if a busy machine's database was too slow to take it."""
            asked = house.invocation(patient.slide, cancellationToken=f"c{number}")
            url = f"{(first, other)[number % 2].url}/ia/milvue-trauma"
            while (status := (await house.invoke(asked, url=url))[0]) == 503:
                pass
            return status

        async with asyncio.timeout(4 * PATIENCE):
            assert await asyncio.gather(*map(click, range(20))) == [200] * 20
        assert len(await house.jobs_on(patient.slide)) == 1
        await house.start("--only", "workers")
        house.gateways.append(other)  # it has doors, the worker has none
        await house.job_on(patient.slide, "done")
        house.gateways.pop()
        assert house.bytes_arrived(patient) == [1]
        [result] = house.results_on(patient.slide)
        assert "Milvue" in result["displayResult"]


async def test_a_gateway_with_another_database_is_refused_this_folder(
    tmp_path: Path, store: Store, empty_database_url: str
) -> None:
    """Each would make jobs of what was sent to the other."""
    async with hospital(tmp_path, empty_database_url) as house:
        spool = Spool(Path(house.configuration["data_dir"]))
        spool.open()
        for _ in range(2):
            spool.claim(await store.installation())
        with pytest.raises(RuntimeError, match="belongs to a gateway with another database"):
            await house.start()
