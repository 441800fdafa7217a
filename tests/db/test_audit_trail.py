"""The audit collector hears all that happened, in its order, whoever is away or dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.circuits import Circuits, Patience, Peer
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.audit_log import AuditLog
from gateway.settings.certificates import calling
from gateway.watch.audit_messages import Source
from gateway.watch.audit_trail import AuditTrail
from gateway.watch.syslog import PEER, Collector
from tests.db.crew import PATIENCE, bring
from tests.peers.collector import Heard, Rsyslog, rsyslog

PATIENT = "PID\x01<&\"' Ünknown"


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Rsyslog]:
    async with rsyslog(tmp_path / "collector") as started:
        yield started


@pytest.fixture
def trail(store: Store, collector: Rsyslog) -> AuditTrail:
    return trail_of(store, collector)[0]


def trail_of(store: Store, collector: Rsyslog) -> tuple[AuditTrail, Circuits]:
    settings = AuditLog.model_validate(collector.configured())
    sender = Collector(settings.host, settings.port, calling("audit_log", settings))
    circuits = Circuits(store, Patience(0.1, 0.2, 5))
    made = AuditTrail(sender, Source("gateway.hospital", ["GATEWAY"]), store, circuits, circuits.bars)

    async def nobody(_: Any) -> bool:
        return True

    circuits.know({PEER: Peer("the audit collector", made.check)}, nobody)
    return made, circuits


def asked(**more: Any) -> NewJob:
    given = {"department": "emergency", "application": "trauma", "adapter": "milvue"}
    return NewJob(**given, origin=Origin.REST, caller="ops", **more)  # type: ignore[arg-type]


def numbers(heard: list[Heard], kind: str) -> list[int]:
    return [number for known, number in (each.record for each in heard) if known == kind]


async def test_what_people_do_is_told_by_the_standards_schema(
    store: Store, trail: AuditTrail, collector: Rsyslog
) -> None:
    await store.note_in_audit("nobody", "from before", {})
    await trail.started()
    new = asked(study_instance_uid="1.2.3", accession_number="A\u20281", patient_id=PATIENT, slide_id="s-1")
    job, _ = await store.create(new)
    canary, _ = await store.create(asked(study_instance_uid="1.2.4", canary=True))
    await store.cancel(canary.id, "ops")
    await store.note_in_audit("ann", "looked at", {"by": "console"}, job.id)
    await store.note_in_audit("ann", "signed in", {"by": "oidc", "from": "10.0.0.7"})
    await store.note_in_audit("nobody", "sign-in refused", {"by": "oidc", "from": "10.0.0.8", "why": "no"})
    await store.note_in_audit("nobody", "wrong tokens", {"door": "api", "addresses": {"10.0.0.9": 12}})
    await store.pause("adapters.milvue", "maintenance\x00", "ann")
    await store.note_in_audit("ann", "signed out", {"by": "oidc", "from": "10.0.0.7"})
    await store.note_in_audit("gateway", "archive compared", {"archive": "vna", "studies": 3})
    await trail.stopped()
    await trail.look()
    heard = collector.heard()
    told = [(each.event, each.kind or each.action, each.outcome) for each in heard]
    assert told == [
        ("Application Activity", "Application Start", "0"),
        ("Patient Record", "C", "0"),
        ("Patient Record", "R", "0"),
        ("User Authentication", "Login", "0"),
        ("User Authentication", "Login", "4"),
        ("Security Alert", "Node Authentication", "8"),
        ("Security Alert", "Software Configuration", "0"),
        ("User Authentication", "Logout", "0"),
        ("Query", "E", "0"),
        ("Application Activity", "Application Stop", "0"),
    ]
    about = heard[2]
    assert about.things("Patient Number") == ["PID\ufffd<&\"' Ünknown"] and about.job == str(job.id)
    assert about.things("Study Instance UID") == ["1.2.3"] and about.things("Slide") == ["s-1"]
    assert about.users[0] == "ann" and str(canary.id) not in "".join(collector.lines())
    await trail.look()
    assert len(collector.heard()) == len(heard), "nothing is told twice"


async def test_wherever_a_patients_data_go_is_told(
    store: Store, trail: AuditTrail, collector: Rsyslog, database_url: str
) -> None:
    await trail.started()
    of_slide = {"slide_id": "s-1", "server": "main", "study_instance_uid": "1.2.3", "patient_id": "P-77"}
    asked_there = NewJob("lab", "kidney", "kidney", Origin.SECTRA, **of_slide, cancellation_token="c")  # type: ignore[arg-type]
    job, _ = await store.create(asked_there)
    job = await bring(store, job, State.SUBMITTING)
    for what, detail in (
        ("fetching the rest of the study from vna", {"instances": 3}),
        ("sending to the vendor", {}),
        ("try 1 failed; again in 5 s", {"message": "the vendor hung up"}),
        ("calling the vendor", {}),
        ("the vendor called: tiles", {"tiles": 4000, "bytes": 10**9}),
        ("the vendor called: files", {"bytes": 0, "outcome": "403"}),
        ("a delivery failed; it will be tried again", {"destination": "ris", "message": "it hung up"}),
    ):
        await store.note(job, what, detail)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO slide_results (server, application, slide_id, result_id, result_of)"
            " VALUES ('main', 'kidney', 's-1', 7, %s)",
            (job.id,),
        )
    for verdict in ("changed", "deleted"):
        await store.count_verdict("main", "kidney", 7, verdict, datetime.now(UTC))
    await store.cancel_by_token("kidney", "c")
    await store.create(NewJob("lab", "kidney", "kidney", Origin.SENT, study_instance_uid="1.2.4"))
    await trail.look()
    told = [(each.event, each.action, each.outcome, each.users[0]) for each in collector.heard()[1:]]
    assert told == [
        ("Patient Record", "C", "0", "sectra.main"),
        ("Begin Transferring DICOM Instances", "E", "0", "archives.vna"),
        ("Begin Transferring DICOM Instances", "E", "0", "sectra.main"),
        ("DICOM Instances Transferred", "E", "4", "sectra.main"),
        ("Patient Record", "R", "0", "adapters.kidney"),
        ("Patient Record", "R", "0", "adapters.kidney"),
        ("Patient Record", "R", "4", "adapters.kidney"),
        ("Patient Record", "U", "4", "gateway.hospital"),
        ("Patient Record", "U", "0", "sectra.main"),
        ("Patient Record", "D", "0", "sectra.main"),
        ("Patient Record", "U", "0", "sectra.main"),
        ("DICOM Instances Transferred", "C", "0", "dimse"),
    ]
    for each in collector.heard()[1:-1]:
        assert each.things("Patient Number") == ["P-77"] and each.things("Slide") == ["s-1"]


async def test_a_record_that_no_message_can_be_made_of_keeps_no_other_from_being_told(
    store: Store, trail: AuditTrail, collector: Rsyslog
) -> None:
    await trail.started()
    await store.note_in_audit("ann", "signed in", {"from": "\ud800" * 3, "by": ["oidc"]})
    await store.note_in_audit("gateway", "unprocessed studies started", {"jobs": ["x" * 36] * 5000})
    job, _ = await store.create(asked(study_instance_uid="1.2.3"))
    await store.note(await bring(store, job, State.ANALYSING), "odd", {"acknowledged": "many"})
    await trail.look()
    last = collector.heard()[-1]
    assert (last.event, last.outcome, last.job) == ("Security Alert", "8", str(job.id))
    assert max(map(len, collector.lines())) < 8000


async def test_what_is_written_late_is_neither_passed_over_nor_overtaken(
    store: Store, trail: AuditTrail, collector: Rsyslog, database_url: str
) -> None:
    await trail.started()
    await trail.look()
    late = await psycopg.AsyncConnection.connect(database_url)
    async with late:
        await late.execute("INSERT INTO audit (who, what) VALUES ('ann', 'late')")
        await store.note_in_audit("ann", "early", {})
        looking = asyncio.create_task(trail.look())
        await asyncio.sleep(0.3)
        assert len(collector.lines()) == 1
        await late.commit()
        await asyncio.wait_for(looking, PATIENCE)
    assert [each.told for each in collector.heard()[1:]] == ["late", "early"]


async def test_replicas_tell_everything_once_and_in_order_while_the_collector_comes_and_goes(
    open_store: Callable[[str], Store], database_url: str, collector: Rsyslog
) -> None:
    stores = [open_store(database_url) for _ in range(2)]
    replicas = [trail_of(store, collector) for store in stores]
    await replicas[0][0].started()
    ended = asyncio.Event()

    async def tell(trail: AuditTrail, circuits: Circuits) -> None:
        async with circuits.watching():
            while not ended.is_set():
                with suppress(Exception):
                    await trail.look()
                await asyncio.sleep(0.01)

    async def happen() -> None:
        for number in range(60):
            await stores[number % 2].note_in_audit("ann", f"did {number}", {})
            await asyncio.sleep(0.01)

    telling = [asyncio.create_task(tell(*each)) for each in replicas]
    await happen()
    await collector.stop()
    await happen()
    since = await stores[0].trail_waits_since()
    assert since is not None and datetime.now(UTC) - since < timedelta(minutes=5)
    await collector.start()
    await happen()
    async with asyncio.timeout(PATIENCE):
        while await stores[0].trail_waits_since() is not None:
            await asyncio.sleep(0.05)
    ended.set()
    await asyncio.gather(*telling)
    told = numbers(collector.heard(), "act")
    assert sorted(set(told)) == list(range(min(told), min(told) + 181)), "none is lost"
    first = list(dict.fromkeys(told))
    assert first == sorted(first), "none overtakes another"


async def test_whoever_dies_after_sending_leaves_it_to_another_who_sends_it_again(
    store: Store, trail: AuditTrail, collector: Rsyslog, database_url: str
) -> None:
    await trail.started()
    await store.note_in_audit("ann", "did it", {})
    told = await store.take_trail("the dead", 3600)
    assert told is not None
    await trail.look()
    assert collector.lines() == [], "somebody else tells it"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as line:
        await line.execute("UPDATE audit_cursor SET held_until = now() - interval '1 second'")
    await trail.look()
    assert len(collector.heard()) == 2
    settled = await store.settled(1)
    assert settled is not None
    assert not await store.advance_trail("the dead", told, told), "who comes too late says nothing"
