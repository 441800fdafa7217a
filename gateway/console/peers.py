"""Peers: how each archive, vendor, destination and server is, what waits for it; pausing, with a reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web

from gateway.console import wording
from gateway.console.looking import look_again, read_look
from gateway.console.pages import FORM, Desk, Guard, to
from gateway.intake.peers import PeerView, look_at_peers, look_at_replicas, name_peers
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor
from gateway.settings.sections import Settings

_PAUSABLE = ("applications", "adapters", "destinations")
_TITLES = {
    "archives": "Archives",
    "adapters": "Vendors",
    "destinations": "Destinations",
    "sectra": "Sectra servers",
    "applications": "Applications",
    "audit_log": "Audit collector",
    "alerts": "Alerts go out by",
}
_LONGEST = 200


class Peers:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/peers", guard("viewer", self._show)),
            web.post("/peers/pause", guard("operator", self._pause)),
            web.post("/peers/unpause", guard("operator", self._unpause)),
            web.post("/peers/look", guard("operator", self._look)),
        ]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        settings, store = self._desk.settings, self._desk.store
        peers, replicas = await look_at_peers(settings, store), await look_at_replicas(store)
        named = {each: wording.name_peer(settings, each) for each in map(_key, peers)}
        return self._desk.show(
            visitor,
            "peers.html",
            "peers",
            groups=[(title, kind, _of_kind(peers, kind)) for kind, title in _TITLES.items()],
            replicas=replicas,
            looked=await read_look(self._desk, request),
            address=request.path_qs,
            in_force=store.revision,
            named=named,
            limits={each: _limits(settings, each) for each in map(_key, peers)},
            pausable=_PAUSABLE,
            query=lambda peer: urlencode({"waits_for": _key(peer)}),
            needing=[
                *((named[_key(each)], _key(each)) for each in peers if each.state != "well"),
                *((f"a process on {each.host}", "replicas") for each in replicas if each.silent),
            ],
            never_asked={_key(each) for each in peers if _was_never_asked(each)},
        )

    async def _pause(self, request: web.Request, visitor: Visitor) -> web.Response:
        peer, why = self._peer(request), request[FORM].get("why", "").strip()[:_LONGEST]
        if peer.partition(".")[0] not in _PAUSABLE:
            raise Problem(422, "applications, vendors and destinations can be paused, and nothing else")
        if not why:
            raise Problem(422, "say why, as doctors will read it on their slides")
        await self._desk.pausing.pause(peer, why, visitor.name)
        return to("/peers")

    async def _unpause(self, request: web.Request, visitor: Visitor) -> web.Response:
        await self._desk.pausing.unpause(self._peer(request), visitor.name)
        return to(_back(request))

    async def _look(self, request: web.Request, visitor: Visitor) -> web.Response:
        outcome = await look_again(self._desk.store, self._peer(request), visitor.name)
        return to(f"{_back(request)}?{outcome}")

    def _peer(self, request: web.Request) -> str:
        peer = request[FORM].get("peer", "")
        peer = f"adapters.{peer.removeprefix('quotas.')}" if peer.startswith("quotas.") else peer
        known = {f"{each}.{one}" for each, names in name_peers(self._desk.settings).items() for one in names}
        if peer not in known:
            raise Problem(404, "there is no peer of this name in the configuration")
        return peer


def _limits(settings: Settings, peer: str) -> list[str]:
    """How much it is asked for, where that is bounded."""
    kind, _, name = peer.partition(".")
    if kind == "adapters" and (most := settings.adapters[name].max_concurrent):
        return [f"at most {wording.count(most, 'job')} at a time"]
    if kind != "archives":
        return []
    archive = settings.archives[name]
    return [
        *([f"at most {archive.rate}"] if archive.rate else []),
        *([f"read {archive.hours}"] if archive.hours else []),
    ]


def _was_never_asked(peer: PeerView) -> bool:
    """Nothing is known of it."""
    return peer.kind not in ("applications", "alerts") and peer.state == "well" and peer.last_success is None


def _back(request: web.Request) -> str:
    """To the page that the button stands on."""
    here = request[FORM].get("from", "")
    return f"/{here}" if re.fullmatch("peers|jobs/[0-9a-f-]{36}", here) else "/"


def _key(peer: PeerView) -> str:
    return f"{peer.kind}.{peer.name}"


def _of_kind(peers: Sequence[PeerView], kind: str) -> list[PeerView]:
    return [each for each in peers if each.kind == kind]
