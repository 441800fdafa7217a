"""The release before at work on this one's tables, and both beside each other, as while replicas are replaced
one after the other. `tests/releases` has its code: whoever clones the repository may have no history."""

from __future__ import annotations

import asyncio
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.jobs import schema
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import TRAUMA, Gateway, Hospital, Patient, environment_of_gateways, hospital

pytestmark = pytest.mark.slow

SLOW_START = 180.0  # it imports, and compiles what nobody has imported yet, on a machine at work on much else
[BEFORE] = (Path(__file__).parents[1] / "releases").glob("*.tar.xz")


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(BEFORE) as packed:
        packed.extractall(folder, filter="data")
    return folder


async def start_before(house: Hospital, code: Path, *arguments: str) -> Gateway:
    """As `Hospital.start` starts this release."""
    house.configuration.pop("alerts", None)  # a key that it doesn't know
    house.write_configuration()
    words = house.folder / f"gateway-{len(house.gateways)}.log"
    with words.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "gateway", "run"),
            *("--config", str(house.folder / "gateway.yaml"), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=code,
            env=environment_of_gateways() | {"PYTHONPATH": str(code)},
        )
    house.gateways.append(Gateway(process, words))
    if arguments != ("--only", "workers"):
        await house.gateway.listen(SLOW_START)
    return house.gateway


async def ask(house: Hospital, gateway: Gateway, count: int) -> list[Patient]:
    patients = [house.admit(1) for _ in range(count)]
    answers = await asyncio.gather(
        *(house.invoke(house.invocation(each.slide), url=f"{gateway.url}/ia/{TRAUMA}") for each in patients)
    )
    assert [status for status, _, _ in answers] == [200] * count
    return patients


async def require_done(house: Hospital, patients: list[Patient]) -> None:
    """Each of them, and nothing of it twice. Asked of the last gateway that was started."""
    for patient in patients:
        job = await house.job_on(patient.slide, "done")
        assert job["proof"]["stored"] == job["proof"]["received"] > 0
    assert [house.bytes_arrived(each) for each in patients] == [[1]] * len(patients)
    assert [len(house.results_on(each.slide)) for each in patients] == [1] * len(patients)
    stored = [len(house.stored_of(each.study)) for each in patients]
    assert stored == [stored[0]] * len(patients)


async def test_the_release_before_goes_on_with_its_jobs_and_with_this_ones_on_this_ones_tables(
    tmp_path: Path, empty_database_url: str, release_before: Path
) -> None:
    async with hospital(tmp_path, empty_database_url) as house:
        house.milvue.behaviours["*"] = Behaviour(delay=2)
        before = await start_before(house, release_before)
        theirs_end = max(release_before.glob("migrations/versions/0*.py")).name[:4]
        assert await schema.revision_of(empty_database_url) == theirs_end < schema.newest()
        theirs = await ask(house, before, 6)
        await house.until(lambda: house.milvue.arrivals.total() >= 2, "studies are at Milvue")
        now = await house.start("--only", "intake")
        assert await schema.revision_of(empty_database_url) == schema.newest()
        ours = await ask(house, now, 6)
        await require_done(house, [*theirs, *ours])


async def test_this_release_works_on_what_the_one_before_takes_in(
    tmp_path: Path, empty_database_url: str, release_before: Path
) -> None:
    async with hospital(tmp_path, empty_database_url) as house:
        before = await start_before(house, release_before, "--only", "intake")
        await house.start("--only", "workers")
        await house.start("--only", "intake")  # to be asked
        await require_done(house, await ask(house, before, 6))


async def test_both_share_the_work_until_the_last_of_the_release_before_ends(
    tmp_path: Path, empty_database_url: str, release_before: Path
) -> None:
    async with hospital(tmp_path, empty_database_url) as house:
        house.milvue.behaviours["*"] = Behaviour(delay=1)
        before = await start_before(house, release_before)
        now = await house.start()
        early = [*await ask(house, before, 6), *await ask(house, now, 6)]
        await house.until(lambda: house.milvue.arrivals.total() >= 4, "studies are at Milvue")
        assert await before.stop() == 0
        await require_done(house, [*early, *await ask(house, now, 2)])
        assert await now.stop() == 0
        config = house.folder / "gateway.yaml"
        command = ["jobs", "export", "--verify", "--config", str(config)]
        verified = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert verified.exit_code == 0, verified.output
