"""gateway interesting: points a job's study out to its vendor."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.building.house import build
from gateway.commands.jobs import find_job, is_too_short, who_asks
from gateway.commands.opening import FAILED, WRONG_USE, go, only_looking, reached, read_settings
from gateway.settings.sections import Settings
from gateway.work.interest import Interest


def point_out(config: Path | None, job_id: str, as_json: bool) -> int:
    if is_too_short([job_id]):
        return WRONG_USE
    return go(_point_out(read_settings(config), job_id, as_json))


async def _point_out(settings: Settings, given: str, as_json: bool) -> int:
    async with (
        reached(settings, "to show a study to its vendor", acts=True) as url,
        build(only_looking(settings), url) as house,
    ):
        house.lasting.circuits.only_look()
        store = house.lasting.store
        job_id = await find_job(store, given)
        job = None if job_id is None else await store.glance(job_id)
        if job is None:
            return FAILED
        await Interest(store, house.vendors).point_out(job, who_asks())
    told = {"job": str(job.id), "adapter": job.adapter}
    print(json.dumps(told) if as_json else f"{job.adapter} was shown the study of job {job.id}")
    return 0
