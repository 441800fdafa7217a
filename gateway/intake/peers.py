"""/api/v1: how archives, vendors, destinations and servers are, and who is paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from gateway.circuits import Circuits
from gateway.intake.access import Access
from gateway.intake.bodies import OF_PROGRAMS, read_json
from gateway.intake.problems import Problem
from gateway.intake.shapes import Line, read
from gateway.jobs.store import Store
from gateway.jobs.store.canaries import CanaryState
from gateway.jobs.store.circuits import Circuit
from gateway.jobs.store.pauses import Pause
from gateway.nearest import did_you_mean
from gateway.settings.peers import Kept
from gateway.settings.sections import Settings
from gateway.watch.figures import quota_beside

Kind = Literal["applications", "archives", "adapters", "destinations", "sectra", "audit_log", "alerts"]


class PauseRequest(BaseModel):
    """Why, as doctors will read it on their slides."""

    model_config = ConfigDict(extra="forbid")

    why: Line


class CanaryView(BaseModel):
    """Whether the last test study came back, since when that is so, and the seconds of the last one that did.
    Not `whole_way`: the vendor was only asked whether it is there."""

    state: Literal["ok", "failing", "unknown"]
    since: datetime | None
    seconds: float | None
    why: str | None
    last_success: datetime | None
    whole_way: bool


class PeerView(BaseModel):
    """`state`: `well` as far as is known; since its circuit is open `away` (no connection), `silent` (no
    answer), `failing` (errors, or connections that it breaks off), `refused`, `untrusted`; `busy`: a vendor
    takes no more studies for now (429), and is still asked for results; `paused` by a person, or by the
    gateway after it had refused our credentials too often; `command` lets it go on."""

    kind: Kind
    name: str
    state: Literal["well", "away", "silent", "failing", "refused", "untrusted", "busy", "paused"]
    since: datetime | None
    why: str | None
    advice: str | None
    jobs_waiting: int
    next_look: datetime | None
    last_success: datetime | None
    certificate_expires: datetime | None
    certificate_days: int | None  # it still holds
    command: str | None = None
    canary: CanaryView | None = None
    owner: str = ""
    runbook: str | None = None


class ReplicaView(BaseModel):
    """A process of the gateway. `silent`: it gave no sign of life for a minute, and never said that it would
    go; it is forgotten after an hour."""

    host: str
    process: int
    does: str
    version: str
    revision: str  # of the configuration
    began_at: datetime
    seen_at: datetime
    jobs_at_work: int
    worker: int  # its number among those that work on jobs; 0: it does not
    silent: bool


class PeerList(BaseModel):
    peers: list[PeerView]
    replicas: list[ReplicaView]


class PeersDoor:
    def __init__(self, settings: Settings, store: Store, access: Access, circuits: Circuits) -> None:
        self._settings = settings
        self._store = store
        self._access = access
        self._circuits = circuits

    def routes(self) -> list[web.RouteDef]:
        named = "/api/v1/{kind:applications|adapters|destinations}/{name}"
        return [
            web.get("/api/v1/peers", self._list),
            web.post(f"{named}/pause", self._pause),
            web.post(f"{named}/unpause", self._unpause),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        peers = await look_at_peers(self._settings, self._store)
        return _answer(PeerList(peers=peers, replicas=await look_at_replicas(self._store)))

    async def _pause(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        kind, name = self._named(request)
        asked = read(PauseRequest, await read_json(request, OF_PROGRAMS))
        await self._circuits.pause(f"{kind}.{name}", asked.why, who)
        return await self._show(kind, name)

    async def _unpause(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        kind, name = self._named(request)
        await self._circuits.unpause(f"{kind}.{name}", who)
        return await self._show(kind, name)

    def _named(self, request: web.Request) -> tuple[Kind, str]:
        kind: Kind = request.match_info["kind"]  # type: ignore[assignment]
        name = request.match_info["name"]
        if name not in (known := name_peers(self._settings)[kind]):
            none = f"there is none of this name among {kind} in the configuration"
            raise Problem(404, f"{none}{did_you_mean(name, known)}")
        return kind, name

    async def _show(self, kind: Kind, name: str) -> web.Response:
        views = await look_at_peers(self._settings, self._store)
        return _answer(next(each for each in views if (each.kind, each.name) == (kind, name)))


def name_peers(settings: Settings) -> dict[Kind, list[str]]:
    return {
        "applications": list(settings.applications),
        "archives": list(settings.archives),
        "adapters": list(settings.adapters),
        "destinations": list(settings.destinations),
        "sectra": list(settings.sectra.servers),
        "audit_log": [] if settings.audit_log is None else ["syslog"],
        "alerts": [name for name in ("webhook", "email") if getattr(settings.alerts, name) is not None],
    }


async def look_at_peers(settings: Settings, store: Store) -> list[PeerView]:
    circuits = {each.peer: each for each in await store.circuits()}
    pauses = {each.peer: each for each in await store.pauses()}
    waiting = await store.count_waiting()
    seen = [
        _view(
            kind,
            name,
            [circuits[each] for each in known if each in circuits],
            pauses.get(known[0]),
            sum(waiting.get(each, 0) for each in known),
        )
        for kind, names in name_peers(settings).items()
        for name in names
        for known in (with_quota(f"{kind}.{name}"),)
    ]
    standing = {each.cause: each for each in await store.standing_alerts()}
    sent = {name for name, adapter in settings.adapters.items() if adapter.canary is not None}
    canaries = await store.canaries() if sent else {}
    kept = {f"{kind}.{name}": each for kind, named in _kept(settings).items() for name, each in named.items()}
    shown = []
    for view in seen:
        more: dict[str, Any] = {}
        if view.kind == "adapters" and view.name in sent:
            more["canary"] = _canary(canaries.get(view.name))
        if view.kind == "alerts" and (alert := standing.get(f"alerts.{view.name}")) is not None:
            why = alert.sentence.partition(": ")[2] or alert.sentence
            more |= {"state": "failing", "since": _utc(alert.since), "why": why, "advice": alert.advice}
        if (peer := kept.get(f"{view.kind}.{view.name}")) is not None:
            more |= {"owner": peer.owner, "runbook": peer.runbook}
        shown.append(view.model_copy(update=more))
    return shown


def _kept(settings: Settings) -> dict[Kind, Mapping[str, Kept]]:
    return {
        "archives": settings.archives,
        "adapters": settings.adapters,
        "destinations": settings.destinations,
        "sectra": settings.sectra.servers,
    }


async def look_at_replicas(store: Store) -> list[ReplicaView]:
    return [
        ReplicaView(
            host=each.host,
            process=each.process,
            does=each.does,
            version=each.version,
            revision=each.revision,
            began_at=each.began_at.astimezone(UTC),
            seen_at=each.seen_at.astimezone(UTC),
            jobs_at_work=each.at_work,
            worker=each.worker,
            silent=each.silent,
        )
        for each in await store.replicas()
    ]


def _canary(state: CanaryState | None) -> CanaryView:
    if state is None or state.ok is None:
        return CanaryView(
            state="unknown", since=None, seconds=None, why=None, last_success=None, whole_way=True
        )
    return CanaryView(
        state="ok" if state.ok else "failing",
        since=_utc(state.since),
        seconds=state.seconds,
        why=state.why,
        last_success=_utc(state.succeeded_at),
        whole_way=state.whole_way,
    )


def with_quota(peer: str) -> list[str]:
    """All that circuits know of it."""
    quota = quota_beside(peer)
    return [peer] if quota is None else [peer, quota]


def _view(kind: Kind, name: str, circuits: Sequence[Circuit], pause: Pause | None, waiting: int) -> PeerView:
    circuit = next((each for each in circuits if each.peer == f"{kind}.{name}"), None)
    standing = next((each for each in circuits if each.is_open), None)
    expires = None if circuit is None else _utc(circuit.certificate_expires)
    seen = PeerView(
        kind=kind,
        name=name,
        state="well",
        since=None,
        why=None,
        advice=None,
        jobs_waiting=waiting,
        next_look=None,
        last_success=None if circuit is None else _utc(circuit.succeeded_at),
        certificate_expires=expires,
        certificate_days=None if expires is None else (expires - datetime.now(UTC)).days,
    )
    if standing is not None:
        told = {"state": standing.kind, "since": _utc(standing.since), "why": standing.reason}
        seen = seen.model_copy(
            update={**told, "advice": standing.advice, "next_look": _utc(standing.next_probe_at)}
        )
    if pause is not None:
        why = f"the gateway has paused it: {pause.why}" if pause.by_itself else pause.why
        told = {"state": "paused", "since": _utc(pause.since), "why": why, "advice": pause.advice}
        seen = seen.model_copy(update={**told, "next_look": None, "command": pause.command})
    return seen


def _answer(shown: BaseModel) -> web.Response:
    return web.Response(text=shown.model_dump_json(), content_type="application/json")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
