"""The OpenAPI document against the running gateway: schemathesis finds nothing that doesn't agree with it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.peers.gateway import TOKENS, TRAUMA, hospital

pytestmark = pytest.mark.slow

ENDLESS = "/api/v1/events"  # a stream, which it would wait for


@pytest.mark.timeout(400)
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        await house.start()
        patient = house.admit(slide=False)
        job = await house.ask(study_instance_uid=patient.study, application=TRAUMA)
        await house.settled(job["id"], "done")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{house.gateway.url}/api/v1/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKENS['operator']}", "--exclude-path", ENDLESS),
            *(
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "40",
                "--seed",
                "7",
                "--checks",
                "all",
            ),
            *("--suppress-health-check", "all", "--continue-on-failure", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()[-20000:]
        broken = [event for event in house.gateway.events() if event["event"] == "a request broke"]
        assert broken == []
