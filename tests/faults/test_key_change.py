"""Keys are changed as deploy/operations.md says: replica by replica, while work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from tests.peers.gateway import TRAUMA, Gateway, Hospital, hospital

pytestmark = pytest.mark.slow


async def type_(*words: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


async def told(*words: object) -> str:
    result = await type_(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


async def ask_each(house: Hospital, replicas: Sequence[Gateway]) -> None:
    """Whichever stores what, whichever works on it: it is done, and nobody is asked."""
    patients = [(house.admit(1), replica) for replica in replicas for _ in range(2)]
    for patient, replica in patients:
        answer = await house.invoke(house.invocation(patient.slide), url=f"{replica.url}/ia/{TRAUMA}")
        assert answer[0] == 200
    for patient, _ in patients:
        await house.job_on(patient.slide, "done")


async def test_in_two_phases_and_the_seals_of_before_are_still_verified(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        [old] = house.configuration["secret_keys"]
        new, seal = (await told("key")).strip(), await told("key", "--seal")
        house.secrets |= {old, new}
        house.configuration["seal_key"] = seal
        replicas = [await house.start(), await house.start()]
        await ask_each(house, replicas)
        for keys in ([old, new], [new, old]):
            house.configuration["secret_keys"] = keys
            for place in range(2):
                assert await replicas[place].stop() == 0
                replicas[place] = await house.start()
                await ask_each(house, replicas)

        config = tmp_path / "gateway.yaml"
        public = await told("key", "--public", "--config", config)
        for replica in replicas:
            assert await replica.stop() == 0
        changed = {"seal_key": await told("key", "--seal"), "trusted_seal_keys": [public]}
        house.configuration.update(changed)
        replica = await house.start()
        await ask_each(house, [replica])
        assert await replica.stop() == 0
        assert "intact: " in await told("jobs", "export", "--verify", "--config", config)
        config.write_text(yaml.safe_dump(house.configuration | {"trusted_seal_keys": []}))
        unknown = await type_("jobs", "export", "--verify", "--config", config)
        assert unknown.exit_code == 3, "who sealed isn't known: it couldn't be checked"
