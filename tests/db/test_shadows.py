"""Of an application's studies each counts once, by its newest pair, however often it is analysed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.jobs.store.shadows import Made
from gateway.watch.concordance import compare
from tests.db.crew import ask_for


async def begin(store: Store, study: str, *, shadow: str = "second") -> Job:
    """An analysis of the application, and its shadow."""
    job, _ = await store.create(ask_for(study_instance_uid=study))
    await begin_again(store, job, shadow)
    return job


async def begin_again(store: Store, job: Job, shadow: str = "second") -> bool:
    asked = ask_for(
        application=f"shadow/a/{shadow}",
        study_instance_uid=job.study_instance_uid,
        caller=f"shadow/a/{shadow}",
        idempotency_key=str(job.id),
        beside=True,
    )
    return await store.begin_shadow(asked, job.id, "a", shadow)


async def test_a_study_that_is_analysed_again_counts_once(store: Store) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    first, other = await begin(store, "1.2.3"), await begin(store, "1.2.4")
    for pair in await store.pairs("a", since):
        made = Made("result", found=["fracture"] if pair.of == first.id else [])
        await store.compare(pair.job_id, made, made, final=True)
    await begin(store, "1.2.3", shadow="third")
    again = await begin(store, "1.2.3")

    second, third = compare(await store.pairs("a", since))
    assert (second.shadow, second.studies, second.compared, second.under_way) == ("second", 2, 1, 1)
    assert (third.shadow, third.studies) == ("third", 1), "another vendor's pair is another"
    pairs = [pair for pair in await store.pairs("a", since) if pair.shadow == "second"]
    assert {pair.of for pair in pairs} == {other.id, again.id}

    assert not await begin_again(store, again), "once, however often it is asked for"
    assert len(await store.pairs("a", since)) == 3
