"""Many studies that were sent to us and wait: looked after by a query for all, and not by one for each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

from sqlalchemy import event

from gateway.intake.incoming import Incoming
from gateway.jobs.store import Store
from gateway.loops import beside
from gateway.settings.sections import Settings
from tests.peers.dicom_samples import write_study

STUDIES = 300
TRAUMA = {"trauma": {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA", "settle": "300ms"}}


def lay_down(root: Path) -> None:
    [instance] = write_study(root / "made", 1)
    for number in range(STUDIES):
        folder = root / "data" / "incoming" / "trauma" / f"1.2.{number}@{uuid4()}"
        folder.mkdir(parents=True)
        (folder / "1.2.3.dcm").hardlink_to(instance)


async def test_a_restart_asks_for_all_of_them_at_once(store: Store, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        adapters={"vendor": {"kind": "vendor"}},
        departments={"radiology": {"applications": TRAUMA}},
    )
    await asyncio.to_thread(lay_down, tmp_path)

    async def jobs() -> int:
        return sum((await store.count_by_state()).values())

    async with beside(Incoming(settings, store).run()), asyncio.timeout(60):
        while await jobs() < STUDIES:
            await asyncio.sleep(0.1)
    asked: list[str] = []
    # What goes over its lines is what this is about.
    pools = [pool.sync_engine for pool in (store._engine, store._single)]  # noqa: SLF001

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    for pool in pools:
        event.listen(pool, "before_cursor_execute", count)
    try:
        async with beside(Incoming(settings, store, clean_every=0).run()):
            async with asyncio.timeout(60):
                while not any("jobs.id = ANY" in statement for statement in asked):
                    await asyncio.sleep(0.1)
    finally:
        for pool in pools:
            event.remove(pool, "before_cursor_execute", count)
    assert len(asked) < STUDIES / 3
    assert await jobs() == STUDIES
