"""What Prometheus is told from the database: living jobs, peers, certificates; kept while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from gateway import loops
from gateway.contract import Health, Unreachable
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.store import Store
from gateway.loops import Loop, beside
from gateway.settings.sections import Settings
from gateway.watch.certificates import Certificates
from gateway.watch.figures import Figures, expose

VNA = "archives.vna"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    vna = {"kind": "dicomweb", "url": "https://vna.hospital/dicom-web"}
    plain = {"kind": "dicomweb", "url": "http://plain.hospital/dicom-web"}
    return Settings(data_dir=tmp_path, archives={"vna": vna, "plain": plain})


def told(figures: Figures) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(expose(figures)[0].decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


async def test_jobs_and_peers_stay_told_while_the_database_is_away(
    settings: Settings, open_store: Callable[[str], Store], database_url: str
) -> None:
    store = open_store(database_url)
    figures = Figures(settings, store, str)
    for _ in range(2):
        await store.create(NewJob("dept", "app", "vendor", Origin.REST, accession_number="A-SECRET"))
    await store.trip(VNA, "refused", "vna refuses our credentials", "401", "Mend it.", first=1000, most=1000)
    await store.pause("adapters.vendor", "they move", "ops")
    await figures.collect_all()
    for _ in range(2):
        now = told(figures)
        assert now["gateway_jobs", "app", "dept", "received"] == 2
        assert now["gateway_jobs_oldest_age_seconds", "app", "dept", "received"] > 0
        assert now["gateway_peer_state", VNA, "refused"] == 1 and now["gateway_peer_state", VNA, "well"] == 0
        assert now["gateway_peer_state", "archives.plain", "well"] == 1
        assert now["gateway_alerts_standing", VNA] == 1
        assert not any("SECRET" in str(name) for name in now)
        figures._store = open_store("postgresql://gateway@127.0.0.1:9/none")
        await figures.collect_all()
    now = told(figures)
    assert now["gateway_database_up",] == 0
    assert now["gateway_alerts_standing", VNA] == now["gateway_alerts_standing", "database"] == 1
    figures._store = store
    await figures.collect_all()
    assert ("gateway_alerts_standing", "database") not in told(figures)


async def test_loops_that_break_for_the_database_alone_are_no_troubles_of_their_own(
    settings: Settings, open_store: Callable[[str], Store], database_url: str
) -> None:
    """One cause is told once; a loop that breaks for another reason meanwhile is told."""
    nowhere = open_store("postgresql://gateway@127.0.0.1:9/none")

    async def breaks() -> None:
        raise OSError

    lost, lame = Loop("lost", first=0.01, most=0.01), Loop("lame", first=0.01, most=0.01)

    def failing() -> dict[str, float]:
        found = told(figures)
        return {name: found["gateway_loop_failing", name] for name in ("lost", "lame")}

    with structlog.testing.capture_logs() as said:
        async with beside(lost.run(nowhere.ping)), beside(lame.run(breaks)):
            while loops.failures["lost"] < 9 or loops.failures["lame"] < 9:
                await asyncio.sleep(0.01)
            figures = Figures(settings, nowhere, str)
            await figures.collect_all()
            assert failing() == {"lost": 0, "lame": 1}
            figures = Figures(settings, open_store(database_url), str)
            await figures.collect_all()
            assert failing() == {"lost": 1, "lame": 1}, "the database is there, and yet it breaks"
    broke = [line["times"] for line in said if line.get("loop") == "lost" and line["log_level"] == "error"]
    assert broke[:4] == [1, 2, 4, 8]


@pytest.mark.parametrize("who", ["the gateway", "a person"])
async def test_a_vendor_that_the_gateway_paused_has_a_state_of_its_own(
    settings: Settings, store: Store, who: str
) -> None:
    """A person who pauses somebody knows of it; a token that has expired nobody else tells."""
    await store.trip(VNA, "refused", "vna refuses us", "401", "Mend it.", first=1000, most=1000, refused=5)
    if who == "the gateway":
        await store.pause_itself(VNA, "vna", 5)
    else:
        await store.pause(VNA, "they move", "ito")
    figures = Figures(settings, store, str)
    await figures.collect_all()
    states = {
        name[-1] for name, value in told(figures).items() if name[:2] == ("gateway_peer_state", VNA) and value
    }
    assert states == {"paused_by_gateway" if who == "the gateway" else "paused"}


async def test_one_replica_looks_at_a_certificate_and_all_know_of_it(
    settings: Settings, store: Store
) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    asked = []
    away = True

    async def check() -> Health:
        asked.append(VNA)
        if away:
            raise Unreachable("no connection")
        return Health(True, "well", expires)

    checks = {VNA: check, "archives.plain": check}
    first, second = (Certificates(settings, store, checks, lambda _: False) for _ in range(2))
    await first.look()
    await second.look()
    assert len(asked) == 1, "once an hour, and only where certificates are shown"
    away = False
    await store.record_certificate(VNA, None)
    assert await store.take_certificate([VNA], 0.0) == VNA
    await first._look_at(VNA)
    figures = Figures(settings, store, str)
    await figures.collect_all()
    assert told(figures)["gateway_certificate_expiry_timestamp_seconds", VNA, "theirs"] == expires.timestamp()
    [known] = [each for each in await store.circuits() if each.peer == VNA]
    assert known.certificate_expires == expires and not known.is_open
