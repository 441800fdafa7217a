"""An alert goes out once, by whichever replica, and an all-clear after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psycopg
import pytest
import structlog
from aiosmtpd.smtp import AuthResult

from gateway.contract import Failure, Health, NeedsHuman, Retryable
from gateway.intake.peers import look_at_peers
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.alerts import Cause
from gateway.jobs.store.parked import Backlog
from gateway.settings.sections import Email, Settings
from gateway.watch.alerts import Alerts
from gateway.watch.causes import Troubles
from gateway.watch.channels import Channel, Channels, Mail, Message, Webhook, stand_for
from gateway.watch.outage import Outage
from tests.peers.certificates import Authority
from tests.peers.hook import Hook, open_hook
from tests.peers.letters import letters

VENDOR = "adapters.vendor"
TOKEN = "a-token-of-the-webhook"


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with open_hook() as opened:
        yield opened


async def trip(store: Store, peer: str = VENDOR) -> None:
    assert await store.trip(
        peer, "away", "Vendor is not reachable", "no connection", "Look there.", first=1000, most=1000
    )


async def minutes_pass(url: str) -> None:
    """For whatever waits to be told."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("UPDATE alerts SET next_try_at = now()")


async def test_it_is_told_once_by_all_replicas_together_and_so_is_the_all_clear(
    store: Store, database_url: str, hook: Hook
) -> None:
    await store.create(NewJob("dept", "app", "vendor", Origin.REST, accession_number="A-SECRET"))
    await trip(store)
    async for _ in store.park(VENDOR, [Backlog((State.RECEIVED,), adapter="vendor")], "why", "why"):
        pass
    async with aiohttp.ClientSession() as session:
        replicas = [Alerts(store, Channels({"webhook": Webhook(hook.url, TOKEN, session)})) for _ in range(4)]
        await asyncio.gather(*(each.look() for each in replicas))
        assert hook.told == [], "what is over in a moment is no news"
        for _ in range(3):
            await minutes_pass(database_url)
            await asyncio.gather(*(each.look() for each in replicas))
        [told] = hook.told
        assert (told["kind"], told["cause"], told["jobs_waiting"]) == ("alert", VENDOR, 1)
        assert told["sentence"].startswith("Vendor is not reachable since ")
        assert told["sentence"].endswith("; 1 dept job waits; nothing is lost")
        assert told["advice"] == "Look there."
        await store.close_circuit(VENDOR)
        for _ in range(3):
            await minutes_pass(database_url)
            await asyncio.gather(*(each.look() for each in replicas))
        [_, clear] = hook.told
        assert (clear["kind"], clear["id"]) == ("all-clear", told["id"])
        assert clear["cleared_at"] is not None
    assert hook.tokens == {f"Bearer {TOKEN}"}
    assert "SECRET" not in str(hook.told)


async def test_what_was_over_before_anybody_was_told_is_no_news(
    store: Store, database_url: str, hook: Hook
) -> None:
    await trip(store)
    await store.close_circuit(VENDOR)
    async with aiohttp.ClientSession() as session:
        await minutes_pass(database_url)
        await Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)})).look()
    assert hook.told == []


async def test_who_may_have_heard_of_it_hears_that_it_is_over(
    store: Store, database_url: str, hook: Hook
) -> None:
    """Whoever told it died before it could say so."""
    await trip(store)
    await minutes_pass(database_url)
    assert len(await store.take_untold(30)) == 1
    await store.close_circuit(VENDOR)
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            await minutes_pass(database_url)
            await Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)})).look()
    assert [told["kind"] for told in hook.told] == ["all-clear"]


@pytest.mark.parametrize("status", [302, 401, 404, 500])
async def test_a_channel_that_fails_is_seen_and_told_again_later(
    store: Store, database_url: str, hook: Hook, status: int
) -> None:
    await trip(store)
    hook.refusing = status
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, TOKEN, session)}))
        with structlog.testing.capture_logs() as said:
            for _ in range(2):
                await minutes_pass(database_url)
                with pytest.raises(Failure) as caught:
                    await alerts.look()
                assert "Doe" not in caught.value.sentences
        assert [line["event"] for line in said].count("alert") == 1, "whatever the channel does"
        await alerts.look()  # not yet again
        hook.refusing = None
        await minutes_pass(database_url)
        await alerts.look()
    assert [told["kind"] for told in hook.told] == ["alert"]


async def test_one_that_was_being_told_by_who_died_is_told_by_another(
    store: Store, database_url: str, hook: Hook
) -> None:
    await trip(store)
    await minutes_pass(database_url)
    assert len(await store.take_untold(timedelta(hours=1).total_seconds())) == 1
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, TOKEN, session)}))
        await alerts.look()
        assert hook.told == []
        await minutes_pass(database_url)
        await alerts.look()
    assert len(hook.told) == 1


async def test_one_that_was_being_told_by_who_was_stopped_is_told_at_once_by_who_comes_after(
    store: Store, database_url: str, hook: Hook
) -> None:
    """A changed configuration stops all that works, and begins it anew."""
    begun = asyncio.Event()

    class Hanging(Unasked):
        async def tell(self, message: Message) -> None:
            begun.set()
            await asyncio.Event().wait()

    await trip(store)
    await minutes_pass(database_url)
    stopped = asyncio.create_task(Alerts(store, Channels({"webhook": Hanging()})).look())
    await begun.wait()
    stopped.cancel()
    await asyncio.wait([stopped])
    async with aiohttp.ClientSession() as session:
        await Alerts(store, Channels({"webhook": Webhook(hook.url, TOKEN, session)})).look()
    assert hook.kinds(VENDOR) == ["alert"]


@pytest.mark.parametrize("died", ["before the log had it", "amid telling it"])
async def test_the_log_has_a_line_of_whatever_was_being_told_by_who_died_and_of_its_end(
    store: Store, database_url: str, died: str
) -> None:
    """It may be all that anybody looks at."""
    with structlog.testing.capture_logs() as said:
        await trip(store)
        await minutes_pass(database_url)
        [taken] = await store.take_untold(60)
        alerts = Alerts(store, Channels({}))
        if died == "before the log had it":
            await look(alerts, database_url)
        await store.close_circuit(VENDOR)
        if died == "before the log had it":
            await minutes_pass(database_url)
            assert len(await store.take_untold(60)) == 1
        for _ in range(2):
            await look(alerts, database_url)
    told = [line["event"] for line in said if line.get("cause") == taken.cause]
    assert told == ["alert", "all-clear"][died == "amid telling it" :]


async def look(alerts: Alerts, url: str) -> None:
    await minutes_pass(url)
    with suppress(Failure):
        await alerts.look()


async def test_one_channel_that_fails_keeps_nobody_else_from_hearing_and_is_told_by_the_others(
    store: Store, database_url: str, hook: Hook, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    secured = authority.certify("mail").server
    signed_in: list[Any] = []

    def sign_in(_: object, __: object, ___: object, ____: object, given: Any) -> AuthResult:
        signed_in.append(given)
        return AuthResult(success=given.password == b"secret-of-the-mail")

    with letters(
        tls_context=secured, require_starttls=True, auth_required=True, authenticator=sign_in
    ) as post:
        email = Email.model_validate(
            {
                "host": "127.0.0.1",
                "port": post.port,
                "from": "gateway@hospital.example",
                "to": ["it@hospital.example"],
                "tls": "starttls",
                "username": "gateway",
                "password": "secret-of-the-mail",
                "ca": authority.path,
            }
        )
        post.refuses = True
        await trip(store)
        contacts = {"dept": "dept@hospital.example", "other": "other@hospital.example"}
        async with aiohttp.ClientSession() as session:
            ways: dict[str, Channel] = {
                "webhook": Webhook(hook.url, TOKEN, session),
                "email": Mail(email, contacts),
            }
            channels = Channels(ways)
            alerts = Alerts(store, channels, departments={VENDOR: ["dept"]})
            for _ in range(3):
                await look(alerts, database_url)
            assert [told["cause"] for told in hook.told] == [VENDOR], "once, though the other is tried again"
            await store.see(await channels.standing())
            await look(alerts, database_url)
            assert [told["cause"] for told in hook.told] == [VENDOR, "alerts.email"]
            head, _, reason = hook.sentence("alerts.email").partition(": ")
            assert head.startswith("alerts can't be told by email since ")
            assert reason == "the mail server doesn't take the alert"
            assert hook.told[-1]["advice"] == "Its own log says why."
            post.refuses = False
            await look(alerts, database_url)
            await look(alerts, database_url)
            assert await channels.standing() == []
        assert post.about(VENDOR) == ["alert"]
        assert post.recipients == {"it@hospital.example", "dept@hospital.example"}
        assert signed_in, "it asked who we are"
        assert len(hook.told) == 2


async def test_what_nobody_finds_standing_any_more_is_over_and_what_stands_is_told_again(
    store: Store, database_url: str, hook: Hook
) -> None:
    cause = Cause("disk.here", "the disk is full", "Free it.", ("dept",))
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)}), remind=3600)
        for _ in range(2):
            await store.see([cause])
            await look(alerts, database_url)
        assert [told["kind"] for told in hook.told] == ["alert"]
        assert hook.told[0]["departments"] == ["dept"]
        await tell(database_url, "UPDATE alerts SET told_at = now() - interval '61 minutes'")
        await look(alerts, database_url)
        await look(alerts, database_url)
        await store.clear_unseen(3600)
        await look(alerts, database_url)
        assert [told["kind"] for told in hook.told] == ["alert", "reminder"]
        await tell(database_url, "UPDATE alerts SET reminded_at = now() - interval '61 minutes'")
        await look(alerts, database_url)
        assert [told["kind"] for told in hook.told] == ["alert", "reminder", "reminder"]
        assert len({told["telling"] for told in hook.told}) == 3, "who files by it keeps all of them"
        await store.clear_unseen(0)
        await look(alerts, database_url)
    assert [told["kind"] for told in hook.told] == ["alert", "reminder", "reminder", "all-clear"]


async def test_a_channel_that_hangs_delays_neither_the_others_nor_other_alerts(
    store: Store, database_url: str
) -> None:
    heard: list[str] = []
    all_heard = asyncio.Event()

    class Ready(Unasked):
        async def tell(self, message: Message) -> None:
            heard.append(message.cause)
            if len(heard) == 2:
                all_heard.set()

    class Hanging(Unasked):
        async def tell(self, message: Message) -> None:
            async with asyncio.timeout(60):
                await all_heard.wait()

    for peer in (VENDOR, "archives.vna"):
        await trip(store, peer)
    await look(Alerts(store, Channels({"hanging": Hanging(), "ready": Ready()})), database_url)
    assert sorted(heard) == [VENDOR, "archives.vna"]


@pytest.mark.parametrize("meanwhile", [False, True], ids=["told", "being told"])
async def test_that_a_peer_has_paused_itself_is_told_once_more_and_what_to_do(
    store: Store, database_url: str, hook: Hook, meanwhile: bool
) -> None:
    refused = "Vendor refuses our credentials"
    await store.trip(VENDOR, "refused", refused, "401", "Renew it.", first=1000, most=1000, refused=2)
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)}))
        if meanwhile:
            await minutes_pass(database_url)
            [taken] = await store.take_untold(60)
            assert await store.pause_itself(VENDOR, "Vendor", 5)
            await store.mark_told(taken)
        else:
            await look(alerts, database_url)
            assert await store.pause_itself(VENDOR, "Vendor", 5)
        for _ in range(3):
            await look(alerts, database_url)
        assert [told["kind"] for told in hook.told] == ["alert"] * (not meanwhile) + ["reminder"]
        told = hook.told[-1]
        tellings = {told["telling"]}
        assert told["sentence"].startswith("the gateway has paused Vendor since ")
        assert ": it refused our credentials 5 times; " in told["sentence"]
        assert told["advice"].startswith("Mend the token, then unpause it (gateway unpause adapter vendor, ")
        await store.tell_unpaused(VENDOR, refused, "Renew it.")
        assert [each.sentence for each in await store.standing_alerts()] != [refused], "it is paused"
        assert await store.unpause(VENDOR, "ito")
        await store.tell_unpaused(VENDOR, refused, "Renew it.")
        assert [each.sentence for each in await store.standing_alerts()] == [refused]
        assert await store.pause_itself(VENDOR, "Vendor", 5)
        await look(alerts, database_url)
        assert hook.told[-1]["telling"] not in tellings, "no mail server takes it for the letter before"


async def test_who_is_to_hear_only_since_it_stands_hears_that_it_does_and_nobody_twice(
    store: Store, database_url: str, hook: Hook
) -> None:
    """A channel that is added or changed by a reload: else all it heard would be an all-clear."""
    async with open_hook() as added, open_hook() as moved, aiohttp.ClientSession() as session:

        def replicas(**addresses: str) -> list[Alerts]:
            ways = {name: Webhook(url, None, session) for name, url in addresses.items()}
            made = [
                Channels(dict(ways), {name: stand_for(url) for name, url in addresses.items()}) for _ in "ab"
            ]
            return [Alerts(store, each, remind=3600) for each in made]

        async def all_look(all_of_them: list[Alerts]) -> None:
            for _ in range(3):
                await minutes_pass(database_url)
                await asyncio.gather(*(each.look() for each in all_of_them))

        await trip(store)
        await all_look(replicas(webhook=hook.url))
        await all_look(replicas(webhook=hook.url, other=added.url))
        assert [told["kind"] for told in added.told] == ["alert"]
        assert added.told[0]["sentence"] == hook.told[0]["sentence"]
        await all_look([*replicas(webhook=moved.url, other=added.url), *replicas(webhook=hook.url)])
        await tell(database_url, "UPDATE alerts SET told_at = now() - interval '61 minutes'")
        await all_look(replicas(webhook=moved.url, other=added.url))
        await store.close_circuit(VENDOR)
        await all_look(replicas(webhook=moved.url, other=added.url))
        whole = ["alert", "reminder", "all-clear"]
        assert [[told["kind"] for told in each.told] for each in (hook, added, moved)] == [
            ["alert"],
            whole,
            whole,
        ]


async def test_why_alerts_do_not_get_out_is_shown_beside_the_peers(store: Store, hook: Hook) -> None:
    hook.refusing = 401
    settings = Settings.model_validate({"alerts": {"webhook": {"url": hook.url}}})
    [peer] = await look_at_peers(settings, store)
    assert (peer.kind, peer.name, peer.state) == ("alerts", "webhook", "well")
    async with aiohttp.ClientSession() as session:
        channels = Channels({"webhook": Webhook(hook.url, None, session)})
        message = Message(1, "alert", VENDOR, "Vendor is away", "", "", None, 0)
        for _ in range(2):
            assert await channels.tell(message, (), lambda _: asyncio.sleep(0)) is not None
        await store.see(await channels.standing())
    [peer] = await look_at_peers(settings, store)
    assert (peer.state, peer.advice) == ("failing", "Correct alerts.webhook.token.")
    assert peer.why == "the webhook of alerts refused our credentials (401) while telling an alert"


async def test_what_the_release_before_told_is_not_told_again(
    store: Store, database_url: str, hook: Hook
) -> None:
    await trip(store)
    await tell(database_url, "UPDATE alerts SET told_at = now(), told_to = '{log,alert:webhook}'")
    async with aiohttp.ClientSession() as session:
        await look(Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)})), database_url)
    assert hook.told == []


async def test_a_channel_that_never_took_anything_keeps_no_reminder_from_the_others(
    store: Store, database_url: str, hook: Hook
) -> None:
    async with open_hook() as broken, aiohttp.ClientSession() as session:
        broken.refusing = 500
        await trip(store)
        await look(Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)})), database_url)
        ways: dict[str, Channel] = {
            "webhook": Webhook(hook.url, None, session),
            "other": Webhook(broken.url, None, session),
        }
        alerts = Alerts(store, Channels(ways), remind=3600)
        await look(alerts, database_url)
        await tell(database_url, "UPDATE alerts SET told_at = now() - interval '61 minutes'")
        await look(alerts, database_url)
    assert hook.kinds(VENDOR) == ["alert", "reminder"]


async def test_what_comes_again_at_once_is_told_later(store: Store, database_url: str, hook: Hook) -> None:
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)}), group=60)
        for _ in range(2):
            await trip(store)
            await look(alerts, database_url)
            await store.close_circuit(VENDOR)
            await look(alerts, database_url)
        assert [told["kind"] for told in hook.told] == ["alert", "all-clear"]
        await trip(store)
        await look(alerts, database_url)
        await tell(
            database_url,
            "UPDATE alerts SET clear_told_at = now() - interval '61 s', told_at = now()"
            " - interval '62 s' WHERE cleared_at IS NOT NULL AND tries = 0 AND told_to <> '{}'",
        )
        await look(alerts, database_url)
    assert [told["kind"] for told in hook.told] == ["alert", "all-clear", "alert"]


async def test_a_database_that_is_away_is_told_without_it_once_for_a_data_dir_and_after_a_restart(
    open_store: Callable[[str], Store], database_url: str, hook: Hook, tmp_path: Path
) -> None:
    nowhere = open_store("postgresql://gateway@127.0.0.1:9/none")
    async with aiohttp.ClientSession() as session:
        channels = Channels({"webhook": Webhook(hook.url, None, session)})
        both = [Outage(nowhere, channels, tmp_path) for _ in range(2)]
        for _ in range(3):
            for each in both:
                await each.look()
                each._away_since = datetime.now(UTC) - timedelta(minutes=1)
        [told] = hook.told
        assert (told["kind"], told["cause"]) == ("alert", "database")
        again = Outage(open_store(database_url), channels, tmp_path)
        await again.look()
        await again.look()
    assert [each["kind"] for each in hook.told] == ["alert", "all-clear"]
    assert "nothing is lost" in hook.told[0]["sentence"] and hook.told[0]["id"] == hook.told[1]["id"]


TWO_MATCH = "2 studies in vna match the accession number"
CHOOSE = "Choose the right one on the job's page, or by gateway jobs resume ID --study UID."
TRIES = "the archive vna answered 500 while fetching the study"
BUSY = "It is busy or broken; its own log says more."


async def held(store: Store, *failures: Failure) -> list[str]:
    """A job for each."""
    for _ in failures:
        new = NewJob("dept", "app", "vendor", Origin.REST, accession_number=f"A-SECRET-{uuid4()}")
        await store.create(new)
    ids = []
    for job, failure in zip(await store.claim(1, len(failures), 60, {}), failures, strict=True):
        await store.move(
            job,
            to=State.HELD,
            held_in=job.state.value,
            held_by=failure.peer,
            error_message=failure.message,
            error_advice=failure.advice,
            error_kind=failure.kind,
        )
        ids.append(str(job.id))
    return ids


async def test_held_jobs_are_told_each_by_why_and_by_what_helps(store: Store) -> None:
    """Whoever does what stands there doesn't get them back as they were."""
    differ = "the counts differ: {} objects received from the vendor, 3 stored"
    [choosing, *others] = await held(
        store,
        NeedsHuman(TWO_MATCH, CHOOSE),
        NeedsHuman(differ.format(4), "Look at the archive, then resume the job."),
        NeedsHuman(differ.format(5), "Look at the archive, then resume the job."),
        Retryable(TRIES, BUSY),
        NeedsHuman("the vendor returned a result for another study", "Find out whose it is."),
    )
    troubles = Troubles(Settings(public_url="https://gateway.hospital"), store)
    told = {cause.sentence: cause for cause in await troubles.standing()}
    assert len({cause.key for cause in told.values()}) == 4
    assert all(cause.key.startswith("held.app.") for cause in told.values())
    one, two = "1 dept job is held at app", "2 dept jobs are held at app"
    match = told[f"{one}: {TWO_MATCH}"]
    assert (match.departments, match.jobs) == (("dept",), 1)
    assert match.advice == (
        f"{CHOOSE} gateway jobs show {choosing[:8]} tells more, or https://gateway.hospital/jobs/{choosing}."
    )
    [differing] = (
        cause for sentence, cause in told.items() if sentence.startswith(f"{two}: the counts differ")
    )
    assert differing.jobs == 2 and f"gateway jobs resume {others[0][:8]} {others[1][:8]}" in differing.advice
    tried = told[f"{one}: {TRIES}"]
    assert (
        tried.advice.startswith(BUSY)
        and f"once that is mended, gateway jobs resume {others[2][:8]}" in tried.advice
    )
    another = told[f"{one}: the vendor returned a result for another study"]
    assert "resume" not in another.advice
    assert "SECRET" not in str(told)


@pytest.mark.parametrize("others", [[], [NeedsHuman(TWO_MATCH, CHOOSE)]], ids=["alone", "among others"])
async def test_of_many_held_jobs_all_are_resumed_only_where_one_reason_holds_them(
    store: Store, others: list[Failure]
) -> None:
    await held(store, *others, *(Retryable(TRIES, BUSY) for _ in range(7)))
    told = {cause.jobs: cause.advice for cause in await Troubles(Settings(), store).standing()}
    every = "gateway jobs resume --state held --application app --all"
    assert ("--all" in str(told), every in told[7]) == (not others, not others)
    assert "gateway jobs show ID tells more of each" in told[7] and "http" not in told[7]


async def test_how_many_are_held_is_told_beside_as_how_many_wait_for_a_peer(
    store: Store, database_url: str, hook: Hook
) -> None:
    await held(store, NeedsHuman(TWO_MATCH, CHOOSE), NeedsHuman(TWO_MATCH, CHOOSE))
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(
            store, Channels({"webhook": Webhook(hook.url, None, session)}), [Troubles(Settings(), store)]
        )
        for _ in range(2):
            await look(alerts, database_url)
    [told] = hook.told
    assert (told["jobs_waiting"], told["departments"]) == (2, ["dept"])
    head, _, reason = told["sentence"].partition(": ")
    assert reason == TWO_MATCH
    assert head.startswith("2 dept jobs are held at app since "), "it is they that stand, and not the reason"


async def test_the_all_clear_of_a_peer_promises_no_more_than_another_try(
    store: Store, database_url: str, hook: Hook
) -> None:
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)}))
        await trip(store)
        await look(alerts, database_url)
        await store.close_circuit(VENDOR)
        await look(alerts, database_url)
    assert [told["kind"] for told in hook.told] == ["alert", "all-clear"]
    sentence = hook.told[-1]["sentence"]
    assert sentence.endswith("; what waited for it is tried again by itself")
    assert sentence.startswith("over after less than a minute: “Vendor is not reachable” (")
    assert " since " not in sentence, "whoever skims it would take it for the alert"


async def test_what_is_long_over_and_told_is_forgotten(store: Store, database_url: str) -> None:
    for cause in ("over", "over and untold", "just over", "standing"):
        await store.see([Cause(cause, "something was wrong")])
    over = "cleared_at = now() - interval '184 days'"
    await tell(database_url, f"UPDATE alerts SET {over} WHERE cause LIKE 'over%'")
    await tell(database_url, "UPDATE alerts SET cleared_at = now() WHERE cause = 'just over'")
    await tell(
        database_url, "UPDATE alerts SET clear_told_at = cleared_at WHERE cause IN ('over', 'just over')"
    )
    assert await store.forget_alerts(183) == 1
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        left = await (await connection.execute("SELECT cause FROM alerts ORDER BY cause")).fetchall()
    assert [cause for (cause,) in left] == ["just over", "over and untold", "standing"]


class Unasked:
    async def check(self) -> Health:
        raise AssertionError


async def tell(url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement)


async def test_news_is_told_once_to_whom_it_concerns_and_never_has_an_end(
    store: Store, database_url: str, hook: Hook
) -> None:
    news = Cause("found.job-1.emergency", "Trauma has found: fracture", "Look.", ("emergency",))
    async with aiohttp.ClientSession() as session:
        alerts = Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)}), remind=0.0)
        hook.refusing = 500
        await store.tell_once(news)
        assert await store.standing_causes() == [], "a number of each job is no cause for a metric"
        with pytest.raises(Failure):
            await alerts.look()
        hook.refusing = None
        for _ in range(3):
            await store.tell_once(news)
            await minutes_pass(database_url)
            await alerts.look()
    [told] = hook.told
    assert (told["kind"], told["cause"], told["departments"]) == ("alert", news.key, ["emergency"])
    assert " since " not in told["sentence"]


async def test_what_stands_since_another_day_is_told_with_it(
    store: Store, database_url: str, hook: Hook
) -> None:
    """Whoever reads a reminder in the morning would take it for this night's."""
    await store.trip(
        VENDOR, "busy", "Vendor takes no more (429: its quota is used up)", "429", "", first=9, most=9
    )
    await tell(database_url, "UPDATE alerts SET since = '2026-03-01T12:00:00Z'")
    async with aiohttp.ClientSession() as session:
        await look(Alerts(store, Channels({"webhook": Webhook(hook.url, None, session)})), database_url)
    at = datetime(2026, 3, 1, 12, tzinfo=UTC).astimezone()
    assert hook.told[0]["sentence"].startswith(
        f"Vendor takes no more (429: its quota is used up) since {at:%Y-%m-%d %H:%M}; "
    )
