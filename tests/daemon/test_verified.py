"""What really happens to jobs leaves histories that verify: done, held, cancelled, by REST and on a slide."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.jobs.inspection import Inspection
from gateway.jobs.signing import SealKey, TrustedKeys
from gateway.jobs.store import Store
from gateway.settings.keys import seal_key
from gateway.settings.sections import Settings
from gateway.work.sealing import Sealing, seals_file
from tests.peers.gateway import hospital


async def test_histories_of_real_jobs_are_intact(tmp_path: Path, database_url: str, store: Store) -> None:
    async with hospital(tmp_path, database_url) as house:
        await house.start()
        on_slide, by_rest, other = (house.admit(slide=slide) for slide in (True, False, False))
        assert (await house.fire(on_slide.slide)).status == 200
        done = await house.ask(study_instance_uid=by_rest.study)
        held = await house.ask(study_instance_uid=other.study, patient_id="somebody else's")
        await house.settled(held["id"], "held")
        assert (await house.api("POST", f"jobs/{held['id']}/retry"))[0] == 200
        await house.settled(held["id"], "held")
        assert (await house.api("POST", f"jobs/{held['id']}/cancel"))[0] == 200
        await house.settled(done["id"], "done")
        await house.job_on(on_slide.slide, "done")
        (tmp_path / "seals").mkdir()
        settings = Settings.model_construct(data_dir=tmp_path / "seals", seal_key=None)
        await Sealing(settings, store).seal()
        inspection = Inspection()
        keys = TrustedKeys([SealKey(await asyncio.to_thread(seal_key, settings)).public])
        await inspection.run(store, keys, [seals_file(settings.data_dir)])
        assert inspection.breaks == []
        assert inspection.jobs == 3 and inspection.acts >= 4 and inspection.seals == inspection.outside
