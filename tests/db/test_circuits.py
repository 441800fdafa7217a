"""A peer that is away or refuses us is known to all replicas, looked at by one, and its jobs wait untried."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import structlog

from gateway.circuits import Circuits, Patience, Peer
from gateway.contract import (
    Busy,
    Failure,
    Health,
    NeedsHuman,
    NotLetIn,
    Permanent,
    Retryable,
    Unreachable,
    Untrusted,
)
from gateway.gate import Barred, working_on
from gateway.http import Faltering, Unanswered
from gateway.jobs.records import Job, NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.parked import Backlog

VENDOR = "adapters.vendor"
BRISK = Patience(first=0.05, most=0.2, answers_within=0.5, again=0.05)


@dataclass
class Vendor:
    well: bool = True
    silent: bool = False
    checks: int = 0
    at_once: int = 0
    most_at_once: int = 0
    slow: float = 0.0
    failure: Failure | None = None

    async def check(self) -> Health:
        self.checks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        well = self.well
        try:
            await asyncio.sleep(self.slow)
            if self.silent:
                await asyncio.Event().wait()
            return Health(well, "as it was when asked", failure=None if well else self.failure)
        finally:
            self.at_once -= 1


@dataclass
class Replica:
    circuits: Circuits
    told: list[Job] = field(default_factory=list)
    tellable: bool = True

    async def tell(self, job: Job) -> bool:
        self.told.append(job)
        return self.tellable


def blamed(failure: Failure, peer: str = VENDOR) -> Failure:
    failure.blame(peer)
    return failure


def answering(status: int) -> Failure:
    failure = Faltering(f"it answered {status}")
    failure.manner = f"answers {status}"
    return failure


def replica(
    store: Store, vendor: Vendor, *, hold_after: int | None = None, idle: float = 0.0, **patience: float
) -> Replica:
    made = Replica(Circuits(store, Patience(**{**_plain(BRISK), **patience})))
    backlog = [Backlog((State.SUBMITTING, State.RECEIVED), adapter="vendor")]
    known = {
        VENDOR: Peer("Vendor", vendor.check, backlog, hold_after, asked=True),
        "applications.app": Peer("App", backlog=[Backlog((State.RECEIVED,), applications=["app"])]),
    }
    made.circuits.know(known, made.tell, idle)
    return made


def _plain(patience: Patience) -> dict[str, float]:
    return {name: getattr(patience, name) for name in Patience.__dataclass_fields__}


@asynccontextmanager
async def working(*replicas: Replica) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in replicas:
            await stack.enter_async_context(each.circuits.watching())
        yield


async def until(met: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(30):
        while not (seen := await met()):
            await asyncio.sleep(0.02)
        return seen


async def ask_for(store: Store, slide: str | None = None) -> Job:
    job, _ = await store.create(
        NewJob("dept", "app", "vendor", Origin.REST, study_instance_uid="1.2.3", slide_id=slide)
    )
    return job


async def waiting(store: Store, job: Job) -> bool:
    now = await store.get(job.id)
    return now is not None and now.waits_for is not None


async def bars(each: Replica) -> bool:
    try:
        await each.circuits.require(VENDOR)
    except Barred:
        return True
    return False


# -- what opens it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Unreachable("no connection"), "is not reachable"),
        (NotLetIn("the token has expired"), "refuses our credentials"),
        (Untrusted("another's certificate"), "can't be trusted"),
        (Unanswered("no answer in time"), "doesn't answer"),
        (Retryable("something is wrong"), "doesn't work as it should"),
        (answering(503), "answers 503"),
        (None, "doesn't answer"),
    ],
)
async def test_one_that_nobody_needs_is_asked_how_it_is(
    store: Store, failure: Failure | None, kind: str
) -> None:
    vendor = Vendor(well=False, failure=failure)
    one = replica(store, vendor, idle=0.1)
    async with working(one):
        await until(lambda: bars(one))
        assert one.circuits.why(VENDOR).startswith(f"Vendor {kind} since ")
        assert await store.standing_causes() == [VENDOR]
        vendor.well = True
        await until(lambda: opens(one))


async def opens(each: Replica) -> bool:
    return not await bars(each)


async def test_one_that_is_well_when_it_is_asked_again_was_only_started_anew(store: Store) -> None:
    vendor = Vendor(well=False)
    one = replica(store, vendor, idle=0.1, again=1.0)

    async def asked() -> bool:
        return vendor.checks > 0

    async def asked_thrice() -> bool:
        return vendor.checks > 2

    async with working(one):
        await until(asked)
        vendor.well = True
        await until(asked_thrice)
        assert not await bars(one)


async def test_nobody_is_asked_who_gave_a_sign_or_whom_the_configuration_leaves_alone(store: Store) -> None:
    left_alone, heard = Vendor(), Vendor()
    one = replica(store, heard, idle=3600)
    async with working(replica(store, left_alone), one):
        await one.circuits.heard(VENDOR)
        await asyncio.sleep(2.5)  # each looks around once a second
    assert (left_alone.checks, heard.checks) == (0, 0)


async def test_no_connection_opens_it_at_once_and_for_all_replicas(store: Store) -> None:
    one, other = replica(store, Vendor(well=False)), replica(store, Vendor(well=False))
    async with working(one, other):
        assert not await bars(other)
        assert await one.circuits.met(blamed(Unreachable("no connection")))
        await until(lambda: bars(other))
        with pytest.raises(Barred, match=r"Vendor is not reachable since [0-9]{2}:[0-9]{2}$") as caught:
            await other.circuits.require(VENDOR)
        assert caught.value.peer == VENDOR


@pytest.mark.parametrize(
    "failure",
    [Permanent("422"), NeedsHuman("two match"), Busy("429"), Retryable("cut off"), NotLetIn("403")],
    ids=lambda failure: type(failure).__name__,
)
async def test_an_answer_about_one_job_never_opens_it(store: Store, failure: Failure) -> None:
    one = replica(store, Vendor())
    for _ in range(10):
        job = await ask_for(store)
        assert not await one.circuits.met(blamed(failure), job.id)
    assert not await bars(one)


@pytest.mark.parametrize("failure", [Unanswered("no answer"), Faltering("503"), NotLetIn("401")])
async def test_one_that_isnt_well_when_it_is_asked_is_away(store: Store, failure: Failure) -> None:
    for vendor in (Vendor(well=False), Vendor(silent=True)):
        one = replica(store, vendor, first=1000)
        assert await one.circuits.met(blamed(failure))
        assert await bars(one)
        assert await store.close_circuit(VENDOR)


async def test_what_is_said_of_one_that_is_ill_is_what_was_found_last(store: Store) -> None:
    """Whoever is called at night and reads that it answers 503 rings up those who see to a server that is
    there; whoever refuses us in the end is paused after its refusals alone."""
    vendor = Vendor(well=False, failure=Unreachable("no connection"))
    one = replica(store, vendor, hold_after=3)

    async def said(words: str) -> bool:
        [alert] = await store.standing_alerts()
        assert one.circuits.why(VENDOR)
        return (
            one.circuits.why(VENDOR).startswith(f"Vendor {words} since ")
            and alert.sentence == f"Vendor {words}"
        )

    async with working(one):
        job = await ask_for(store)
        assert await one.circuits.met(blamed(answering(500)), job.id)
        await one.circuits.refresh()
        assert one.circuits.why(VENDOR).startswith("Vendor is not reachable since "), "it was asked since"
        vendor.failure = answering(503)
        await until(lambda: said("answers 503"))
        assert not (await store.circuits())[0].is_storm and not await store.pauses()
        vendor.failure = NotLetIn("the token has expired")
        await until(store.pauses)
        [pause] = await store.pauses()
        assert pause.by_itself and pause.why == "it refused our credentials 3 times"


async def test_one_that_answers_with_errors_is_well_as_soon_as_it_says_so(store: Store) -> None:
    """Unlike one that lets job after job down and says that it is well."""
    vendor = Vendor(well=False, failure=answering(503))
    one = replica(store, vendor)
    async with working(one):
        for _ in range(3):
            job = await ask_for(store)
            assert await one.circuits.met(blamed(answering(503)), job.id)
        assert (await store.circuits())[0].kind == "failing"
        vendor.well = True
        await until(lambda: opens(one))


async def test_one_that_we_do_not_trust_is_no_vendor_that_refuses_us(store: Store) -> None:
    """Somebody renews a certificate: no token is wrong, and nobody has to unpause it afterwards."""
    vendor = Vendor(well=False)
    one = replica(store, vendor, hold_after=2)
    async with working(one):
        assert await one.circuits.met(blamed(Untrusted("its certificate has expired")))
        with pytest.raises(Barred, match=r"Vendor can't be trusted since "):
            await one.circuits.require(VENDOR)
        await until(lambda: asyncio.sleep(0, vendor.checks > 4))
        assert not await store.pauses()
        vendor.well = True

        async def open_again() -> bool:
            return not await bars(one)

        await until(open_again)


async def test_that_it_was_well_a_moment_ago_makes_no_failure_the_jobs_own(store: Store) -> None:
    """Neither what it said before, nor what it was asked before: a job's tries aren't spent on an outage."""
    vendor = Vendor(slow=0.3)
    one = replica(store, vendor, first=1000)
    job, another = await ask_for(store), await ask_for(store)
    before = asyncio.create_task(one.circuits.met(blamed(Faltering("500")), job.id))
    await until(lambda: asyncio.sleep(0, vendor.checks))
    vendor.well = False
    assert await one.circuits.met(blamed(Faltering("503")), another.id)
    assert not await before and vendor.checks == 2
    assert await bars(one)


async def test_a_storm_opens_it_though_it_says_that_it_is_well_and_one_job_alone_is_no_storm(
    store: Store,
) -> None:
    one = replica(store, Vendor(), first=1000)
    first, second = await ask_for(store), await ask_for(store)
    for _ in range(5):
        assert not await one.circuits.met(blamed(Faltering("500")), first.id)
    assert not await bars(one)
    assert await one.circuits.met(blamed(Faltering("500")), second.id)
    assert await bars(one)


async def test_a_success_between_them_makes_failures_no_storm(store: Store) -> None:
    one, other = replica(store, Vendor()), replica(store, Vendor())
    for _ in range(4):
        for _ in range(2):
            job = await ask_for(store)
            assert not await one.circuits.met(blamed(Faltering("500")), job.id)
        await other.circuits.refresh()
        await other.circuits.heard(VENDOR)
    assert not await bars(one)


async def test_one_that_lets_calls_wait_in_silence_is_asked_before_their_patience_is_over(
    store: Store,
) -> None:
    one, well = replica(store, Vendor(silent=True), first=1000, silence=0.2), Vendor()
    async with working(one):
        with one.circuits.calling(VENDOR):
            await until(lambda: bars(one))
    [circuit] = await store.circuits()
    said = "Vendor has said nothing for 0.2 s: no answer within 0.5 s"
    assert (circuit.kind, circuit.reason) == ("silent", said)
    assert await store.close_circuit(VENDOR)
    patient = replica(store, well, silence=0.2)
    async with working(patient):
        with patient.circuits.calling(VENDOR):
            await until(lambda: asyncio.sleep(0, well.checks >= 2))
        assert not await bars(patient), "it is slow, and well"


# -- what closes it -----------------------------------------------------------------------------------


async def test_one_replica_looks_at_a_time_and_closes_it_for_all(store: Store) -> None:
    vendor = Vendor(well=False, slow=0.05)
    replicas = [replica(store, vendor) for _ in range(3)]
    async with working(*replicas):
        await replicas[0].circuits.met(blamed(Unreachable("no connection")))
        vendor.checks = 0

        async def looked_at() -> bool:
            return vendor.checks >= 3

        await until(looked_at)
        for each in replicas:
            await until(lambda each=each: bars(each))  # type: ignore[misc]
        vendor.well = True

        async def all_open() -> bool:
            return not any([await bars(each) for each in replicas])

        await until(all_open)
    assert vendor.most_at_once == 1


async def test_another_looks_when_the_one_that_did_has_died(store: Store, database_url: str) -> None:
    vendor = Vendor()
    one = replica(store, vendor)
    await one.circuits.met(blamed(Unreachable("no connection")))
    [circuit] = await store.circuits()

    async def due() -> bool:
        return (await store.circuits())[0].due

    await until(due)
    assert await store.take_probe(VENDOR, circuit.number, "doomed", 1)
    assert not await store.take_probe(VENDOR, circuit.number, "other", 1), "one at a time"
    async with working(one):

        async def closed() -> bool:
            return not await bars(one)

        await until(closed)


async def test_a_late_look_closes_no_younger_opening(store: Store) -> None:
    one = replica(store, Vendor(well=False), first=1000)
    await one.circuits.met(blamed(Unreachable("no connection")))
    [old] = await store.circuits()
    assert await store.close_circuit(VENDOR, old.number)
    await one.circuits.refresh()
    await one.circuits.met(blamed(Unreachable("no connection")))
    assert not await store.close_circuit(VENDOR, old.number)
    assert await bars(one)


async def test_one_that_opens_again_soon_is_given_more_time(store: Store) -> None:
    one = replica(store, Vendor(well=False), first=100, most=300)
    pauses = []
    for _ in range(4):
        await one.circuits.met(blamed(Unreachable("no connection")))
        [circuit] = await store.circuits()
        assert circuit.next_probe_at is not None
        pauses.append(round((circuit.next_probe_at - circuit.since).total_seconds()))
        await store.close_circuit(VENDOR)
        await one.circuits.refresh()
    assert pauses == [100, 200, 300, 300]


async def test_a_job_that_gets_through_closes_it_where_its_check_never_would(store: Store) -> None:
    one = replica(store, Vendor(well=False))
    jobs = [await ask_for(store) for _ in range(3)]
    async with working(one):
        await one.circuits.met(blamed(Unreachable("no connection")))

        async def all_wait() -> bool:
            return await store.count_waiting() == {VENDOR: 3}

        await until(all_wait)

        async def trial() -> Any:
            return next((each.trial_job for each in await store.circuits()), None)

        chosen = await until(trial)
        await one.circuits.refresh()
        another = next(job.id for job in jobs if job.id != chosen)
        with working_on(chosen):  # what is called deep within its work doesn't know whose it is
            await asyncio.create_task(one.circuits.require(VENDOR))
        with pytest.raises(Barred), working_on(another):
            await one.circuits.require(VENDOR)
        with pytest.raises(Barred):
            await one.circuits.require(VENDOR)
        await one.circuits.heard(VENDOR)
        assert not await bars(one)
        for job in jobs:

            async def woken(job: Job = job) -> bool:
                return not await waiting(store, job)

            await until(woken)


async def test_who_has_a_place_at_the_vendor_is_the_one_to_try(store: Store, database_url: str) -> None:
    """All others wait for a place, and those who have them wait for the vendor: for ever."""
    one = replica(store, Vendor(well=False))
    jobs = [await ask_for(store) for _ in range(3)]
    async with working(one):
        await one.circuits.met(blamed(Unreachable("no connection")))

        async def all_wait() -> bool:
            return await store.count_waiting() == {VENDOR: 3}

        await until(all_wait)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE jobs SET at_vendor = true WHERE id = %s", (jobs[-1].id,))
            connection.execute("UPDATE circuits SET trial_job = NULL")

        async def trial() -> Any:
            return next((each.trial_job for each in await store.circuits()), None)

        assert await until(trial) == jobs[-1].id


# -- the jobs -----------------------------------------------------------------------------------------


async def test_what_waits_for_its_turn_is_made_to_wait_and_woken_and_said_on_its_slide(store: Store) -> None:
    vendor = Vendor(well=False)
    one = replica(store, vendor, first=4, most=4)
    jobs = [await ask_for(store, slide=f"slide-{number}") for number in range(550)]
    async with working(one):
        await one.circuits.met(blamed(Unreachable("no connection")))

        async def all_wait() -> bool:
            return await store.count_waiting() == {VENDOR: 550}

        await until(all_wait)
        parked = await store.get(jobs[0].id)
        assert parked is not None and parked.next_at is None
        assert parked.waits_why is not None
        assert parked.waits_why.startswith("Vendor is not reachable since ")
        assert parked.waits_why.endswith("; this analysis starts by itself")
        assert await store.claim(1, 10, 30, {}) == []

        async def all_told() -> bool:
            return len(one.told) == 550

        await until(all_told)
        assert [e.what for e in await store.events_of(jobs[0].id)][-1] == f"waiting: {parked.waits_why}"
        one.told.clear()
        vendor.well = True
        await until(all_told)
        assert {job.waits_for for job in one.told} == {None}
    assert await store.count_waiting() == {}
    assert len(await store.claim(1, 1000, 30, {})) == 550


async def test_a_slide_that_could_not_be_told_is_told_while_its_job_waits(store: Store) -> None:
    vendor = Vendor(well=False)
    one = replica(store, vendor, first=30, most=30)
    one.tellable = False
    waits = await ask_for(store, slide="slide-1")
    async with working(one):
        await one.circuits.met(blamed(Unreachable("no connection")))

        async def tried_again() -> bool:
            return len(one.told) > 2

        await until(tried_again)
        assert {job.id for job in one.told} == {waits.id}
        one.tellable = True
        tried = len(one.told)

        async def told() -> bool:
            return len(one.told) > tried

        await until(told)
        tried = len(one.told)
        await asyncio.sleep(3)
        assert len(one.told) == tried, "what is told stays told"


async def test_what_its_waker_left_behind_is_woken_by_another(store: Store) -> None:
    job = await ask_for(store)
    one = replica(store, Vendor(well=False), first=1000)
    await one.circuits.met(blamed(Unreachable("no connection")))
    await until(lambda: waiting(store, job))
    assert await store.close_circuit(VENDOR)  # and then it died
    async with working(replica(store, Vendor())):

        async def woken() -> bool:
            return not await waiting(store, job)

        await until(woken)


async def test_the_time_that_it_waited_is_given_back(store: Store, database_url: str) -> None:
    job = await ask_for(store)
    one = replica(store, Vendor(well=False), first=1000)
    await one.circuits.met(blamed(Unreachable("no connection")))
    await until(lambda: waiting(store, job))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE jobs SET result_by = now() + interval '1 minute', updated_at = now() - interval '1 hour'"
        )
    async for _ in store.wake(VENDOR):
        pass
    woken = await store.get(job.id)
    assert woken is not None and woken.result_by is not None and woken.next_at is not None
    assert (woken.result_by - woken.next_at).total_seconds() == pytest.approx(3660, abs=60)


async def test_what_is_begun_as_it_stops_is_given_up_quietly(store: Store) -> None:
    one = replica(store, Vendor(well=False))
    gc.collect()  # what others have left
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with working(one):
            one.circuits.hear(f"peer {VENDOR}")
        gc.collect()
    assert [each for each in map(str, told) if "never awaited" in each] == []


# -- pausing ------------------------------------------------------------------------------------------


async def test_a_pause_stops_all_replicas_and_ends_by_a_person(store: Store) -> None:
    one, other = replica(store, Vendor()), replica(store, Vendor())
    job = await ask_for(store)
    async with working(one, other):
        assert await store.pause(VENDOR, "they move house", "ito")
        assert not await store.pause(VENDOR, "again", "ito")
        await until(lambda: waiting(store, job))
        await until(lambda: bars(one))
        await until(lambda: bars(other))
        parked = await store.get(job.id)
        assert parked is not None and parked.waits_why is not None
        assert parked.waits_why.startswith("Vendor is paused since ")
        assert "(they move house); this analysis starts once it is unpaused" in parked.waits_why
        assert await store.unpause(VENDOR, "ito")
        assert not await store.unpause(VENDOR, "ito")

        async def woken() -> bool:
            return not await waiting(store, job) and not await bars(one) and not await bars(other)

        await until(woken)


async def test_a_vendor_that_refuses_our_credentials_so_often_pauses_itself(store: Store) -> None:
    vendor = Vendor(well=False)
    one, other = replica(store, vendor, hold_after=4), replica(store, vendor, hold_after=4)
    job, early = await ask_for(store), await ask_for(store)
    async with working(one, other):
        with structlog.testing.capture_logs() as said:
            assert await one.circuits.met(blamed(NotLetIn("401", "Renew the token.")), job.id)

            async def paused() -> bool:
                return bool(await store.pauses())

            await until(paused)
            checks = vendor.checks
            assert checks == 3, "and the job's own call"
        [pause] = await store.pauses()
        assert (pause.peer, pause.who) == (VENDOR, "gateway")
        paused_itself = "the gateway has paused Vendor: it refused our credentials 4 times"

        async def reworded(why: str) -> Job | None:
            now = await store.get(early.id)
            return now if now is not None and (now.waits_why or "").startswith(why) else None

        now = await until(lambda: reworded(paused_itself))
        assert now.waits_why == f"{paused_itself}; this analysis starts once it is unpaused"
        unpause = "Mend the token, then unpause it (gateway unpause adapter vendor, or the console)."
        assert (now.error_message, now.error_advice) == (paused_itself, unpause)
        [alert] = await store.standing_alerts()
        assert (alert.sentence, alert.advice) == (paused_itself, unpause)
        assert sum(line["event"].startswith("a peer is away or refuses us") for line in said) == 1
        vendor.well = True
        await asyncio.sleep(1.5)
        assert vendor.checks == checks, "nobody knocks there any more"
        assert await bars(one)
        vendor.well = False
        await store.unpause(VENDOR, "ito")
        refused = await until(lambda: reworded("Vendor refuses our credentials since"))
        assert "once the credentials are right" in refused.error_advice
        assert "refused 4 times it is paused, and then has to be unpaused" in refused.error_advice
        vendor.well = True
        await store.unpause(VENDOR, "ito")

        async def open_again() -> bool:
            return not await bars(one)

        await until(open_again)


async def test_a_canary_that_is_refused_pauses_nobody_and_a_patients_job_does(store: Store) -> None:
    vendor = Vendor(well=False)
    one = replica(store, vendor, hold_after=4)
    new = NewJob("", "canary/vendor", "vendor", Origin.REST, study_instance_uid="1.2.3", canary=True)
    canary, _ = await store.create(new)
    async with working(one):
        assert await one.circuits.met(blamed(NotLetIn("401")), canary.id, canary=True)
        await until(lambda: waiting(store, canary))
        assert await store.waiting_by_department() == {}
        await until(lambda: asyncio.sleep(0, vendor.checks > 3))
        assert not await store.pauses()
        [circuit] = await store.circuits()
        assert circuit.refusals == 0
        job = await ask_for(store)
        async for _ in store.park(VENDOR, [Backlog((State.RECEIVED,), adapter="vendor")], "why", "why"):
            pass
        assert await waiting(store, job)
        assert await store.waiting_by_department() == {VENDOR: {"dept": 1}}
        await until(store.pauses)
