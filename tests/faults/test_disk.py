"""A disk that is nearly full: no new work begins, nothing is lost, and who looks is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.peers.gateway import hospital

pytestmark = pytest.mark.slow


@pytest.mark.timeout(120)
async def test_work_waits_for_room_and_then_goes_on_by_itself(tmp_path: Path) -> None:
    async with hospital(tmp_path) as house:
        house.configuration["least_free"] = "900TB"
        gateway = await house.start()
        patient = house.admit()
        answer = await house.fire(patient.slide)
        assert answer.complaints == [], "the invocation is taken all the same"
        job = await house.job_on(patient.slide, "submitting")
        await house.until(lambda: "nearly full" in gateway.log, "the log says so")
        while (job := await house.settled(job["id"], "submitting"))["waits"] is None:
            await asyncio.sleep(0.05)
        waiting = "waiting: the disk of data_dir is nearly full"
        assert job["waits"]["why"] == waiting
        assert (job["attempt"], house.bytes_arrived(patient)) == (0, [0, 0])
        assert [event["what"] for event in job["events"]].count(waiting) == 1
        await house.gateway.stop()

        del house.configuration["least_free"]
        await house.start()
        await house.api("POST", f"jobs/{job['id']}/retry")
        job = await house.settled(job["id"])
        assert (job["state"], job["error"]) == ("done", None)
        assert house.bytes_arrived(patient) == [1, 1]
