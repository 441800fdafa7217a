"""gateway check: the configuration, then each peer: reachable, credentials, certificates."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from gateway.commands.opening import FAILED, complain, go, only_looking, read_settings
from gateway.contract import Health
from gateway.delivery.destinations import IntoRis, check_reports
from gateway.jobs.schema import newest, revision_of
from gateway.jobs.store import DatabaseLost
from gateway.run import build
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured
from gateway.work.vendors import Vendors

_SOON = timedelta(days=30)
_LIMIT = 30.0


def check(config: Path | None, offline: bool, as_json: bool) -> int:
    settings = read_settings(config)
    return go(_offline(settings, as_json) if offline else _online(settings, as_json))


async def _offline(settings: Settings, as_json: bool) -> int:
    async with aiohttp.ClientSession() as session:
        Vendors(settings, session).check(settings)
    check_reports(settings)
    _require_applications(settings)
    if as_json:
        print(json.dumps({"ok": True, "peers": {}}))
    else:
        print("the configuration is good")
    return 0


async def _online(settings: Settings, as_json: bool) -> int:
    # The parts need no database to be built, only to be used.
    async with build(only_looking(settings), settings.database_url or "postgresql://") as house:
        _require_applications(settings)
        peers = {f"archives.{name}": archive.check() for name, archive in house.archives.named.items()}
        for name, destination in house.destinations.items():
            if isinstance(destination, IntoRis):
                peers[f"destinations.{name}"] = destination.check()
        for name in house.vendors.names:
            peers[f"adapters.{name}"] = house.vendors.make(name, settings.data_dir).check()
        if settings.database_url is not None:
            peers["database_url"] = _database(settings.database_url)
        healths = await asyncio.gather(
            *(asyncio.wait_for(one, _LIMIT) for one in peers.values()), return_exceptions=True
        )
    judged = {name: _judge(one) for name, one in zip(peers, healths, strict=True)}
    ok = all(one.ok for one in judged.values())
    if as_json:
        print(json.dumps({"ok": ok, "peers": {name: _plain(one) for name, one in judged.items()}}))
    else:
        print("the configuration is good")
        for name, health in judged.items():
            line = f"{'good' if health.ok else 'BAD '}  {name}: {health.sentence}{_expiry(health)}"
            print(line) if health.ok else complain(line)
    return 0 if ok else FAILED


def _require_applications(settings: Settings) -> None:
    if not settings.applications:
        raise Misconfigured(["no application is configured; --config or GATEWAY_CONFIG names the file"])


async def _database(url: str) -> Health:
    try:
        revision = await asyncio.to_thread(revision_of, url)
    except DatabaseLost:
        return Health(False, "doesn't answer; check that the server runs and lets us in")
    if revision != newest():
        return Health(True, f"reachable; it is at {revision}, this release needs {newest()}: migrate first")
    return Health(True, "reachable and migrated")


def _judge(outcome: Health | BaseException) -> Health:
    if isinstance(outcome, Health):
        return outcome
    if isinstance(outcome, TimeoutError):
        return Health(False, f"no answer within {_LIMIT:g} s")
    raise outcome


def _expiry(health: Health) -> str:
    expires = health.certificate_expires
    if expires is None:
        return ""
    warning = " SOON" if expires - datetime.now(UTC) < _SOON else ""
    return f" (certificate expires {expires:%F}{warning})"


def _plain(health: Health) -> dict[str, object]:
    expires = health.certificate_expires
    return {
        "ok": health.ok,
        "sentence": health.sentence,
        "certificate_expires": None if expires is None else expires.isoformat(),
    }
