"""Jobs that were held for a peer's trouble go on by themselves; no others do."""

from __future__ import annotations

import psycopg
import pytest

from gateway.contract import Failure, Health, NeedsHuman, NotLetIn, Retryable, Unreachable
from gateway.jobs.engine import Engine
from gateway.jobs.outcomes import Advance
from gateway.jobs.states import State
from gateway.settings.sections import Retry
from gateway.work.recovery import Recovery
from tests.db.crew import BRISK, Script, ask_for, reaches, until

VNA = "archives.vna"


class Peers:
    def __init__(self) -> None:
        self.well: set[str] = set()
        self.asked: list[str] = []

    def check(self, name):
        async def ask():
            self.asked.append(name)
            if name == "adapters.broken":
                raise RuntimeError
            return Health(name in self.well, "")

        return ask

    def recovery(self, store):
        names = (VNA, "archives.pacs", "adapters.broken")
        return Recovery(store, {name: self.check(name) for name in names})


async def hours_pass(store, url, *jobs):
    """Once all there was to tell of the held jobs is told."""
    for job in jobs:

        async def told(job=job):
            found = await store.get(job.id)
            return found.state == State.HELD and found.next_at is None

        await until(told)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("UPDATE jobs SET updated_at = updated_at - interval '1 day'")


def engine_that_fails(store, url, failures):
    """Each job's locating fails as its failures say, then goes on."""
    left = {job: list(failures) for job, failures in failures.items()}

    async def locate(job):
        if left[job.id]:
            raise left[job.id].pop(0)
        return Advance(State.SUBMITTING, "found")

    return Engine(store, url, Script({State.LOCATING: locate}, Retry(attempts=1)), {}, BRISK)


def blamed(failure: Failure, peer: str) -> Failure:
    failure.blame(peer)
    return failure


@pytest.mark.parametrize("kind", [Retryable, Unreachable, NotLetIn])
async def test_what_was_held_for_a_peer_goes_on_when_it_is_well_again(store, database_url, kind):
    peers = Peers()
    recovery = peers.recovery(store)
    job, _ = await store.create(ask_for())
    failures = {job.id: [blamed(kind("it is away"), VNA)]}
    async with engine_that_fails(store, database_url, failures).working():
        held = await reaches(store, job, State.HELD)
        assert held.held_by == VNA
        assert await recovery.look() == 0 and peers.asked == [], "not at once"
        await hours_pass(store, database_url, job)
        assert await recovery.look() == 0 and peers.asked == [VNA]
        peers.well.add(VNA)
        assert await recovery.look() == 1
        done = await reaches(store, job, State.DONE)
    assert (done.held_by, done.recoveries) == (None, 0)
    assert f"goes on by itself: {VNA} answers again" in [e.what for e in await store.events_of(job.id)]


async def test_what_needs_a_person_waits_for_one(store, database_url):
    peers = Peers()
    peers.well |= {VNA, "archives.pacs", "adapters.broken"}
    matches, other = [(await store.create(ask_for()))[0] for _ in range(2)]
    failures = {
        matches.id: [blamed(NeedsHuman("two studies match"), VNA)],
        other.id: [blamed(Retryable("broken"), "adapters.broken")],
    }
    async with engine_that_fails(store, database_url, failures).working():
        for job in (matches, other):
            await reaches(store, job, State.HELD)
        await hours_pass(store, database_url, matches, other)
        assert await peers.recovery(store).look() == 0
    assert peers.asked == ["adapters.broken"]


async def test_a_job_that_is_held_again_and_again_is_left_to_a_person_in_the_end(store, database_url):
    peers = Peers()
    peers.well.add(VNA)
    job, _ = await store.create(ask_for())
    failures = {job.id: [blamed(Retryable("not whole"), VNA) for _ in range(20)]}
    async with engine_that_fails(store, database_url, failures).working():
        for tries in range(4):
            await hours_pass(store, database_url, job)
            assert await peers.recovery(store).look() == 1, tries
        await hours_pass(store, database_url, job)
        assert await peers.recovery(store).look() == 0
        assert (await store.resume(job.id, "me")).recoveries == 0
        await reaches(store, job, State.HELD)


async def test_who_is_nearest_says_whose_trouble_it_is():
    failure = blamed(Retryable("cut"), VNA)
    failure.blame("adapters.milvue")
    assert failure.peer == VNA
