"""The console's pages: filled templates, and what a browser is told to allow them."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from gateway import __version__
from gateway.console import wording
from gateway.intake.visits import Visitor
from gateway.jobs.store import Store
from gateway.settings.sections import Role, Settings

if TYPE_CHECKING:  # for who looks at a page
    from jinja2 import Environment

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FOR_A_YEAR = "max-age=31536000"
_PLACES = (
    ("now", "/", "Now", "viewer"),
    ("jobs", "/jobs", "Jobs", "viewer"),
    ("peers", "/peers", "Peers", "viewer"),
    ("quality", "/quality", "Quality", "viewer"),
    ("audit", "/audit", "Audit", "operator"),
    ("configuration", "/configuration", "Configuration", "operator"),
)

FORM = web.RequestKey("form", dict[str, str])  # of a call that changes something, as the guard has read it
Handler = Callable[[web.Request], Awaitable[web.Response]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
ForVisitors = Callable[[web.Request, Visitor], Awaitable[web.Response]]
Guard = Callable[[Role, ForVisitors], Handler]  # lets those in who have signed in with at least this role


class Pages:
    @cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters |= wording.FILTERS
        templates.globals |= {"places": _PLACES, "now": wording.now, "zone": wording.zone}
        return templates

    def show(self, template: str, status: int = 200, **given: Any) -> web.Response:
        text = self._templates.get_template(template).render(version=__version__, **given)
        return web.Response(
            text=text,
            status=status,
            content_type="text/html",
            headers={"Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin"},
        )

    def tell(self, template: str, status: int, visitor: Visitor | None, sentence: str) -> web.Response:
        """That there is no such page; whoever has signed in keeps the search and the way to the others."""
        return self.show(template, status, visitor=visitor, here="", sentence=sentence)


class Pausing(Protocol):
    async def pause(self, peer: str, why: str, who: str) -> bool: ...

    async def unpause(self, peer: str, who: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages of those who have signed in are made from."""

    settings: Settings
    store: Store
    pages: Pages
    pausing: Pausing
    shows: Callable[[str], bool] = lambda _: False  # whether this adapter's vendor can be shown a study

    def show(self, visitor: Visitor, template: str, here: str, **given: Any) -> web.Response:
        """`here`: which of the places in the navigation it belongs to."""
        return self.pages.show(template, visitor=visitor, here=here, **given)


class Page(Protocol):
    """One of the console's places. It is given a desk, and offers routes."""

    def routes(self, guard: Guard) -> list[web.RouteDef]: ...


def to(place: str) -> web.Response:
    return web.Response(status=303, headers={"Location": place, "Cache-Control": "no-store"})


def attached() -> list[web.RouteDef]:
    """What the pages refer to. By name, and read once: nothing that a caller says leads to the disk."""
    return [web.get(f"/static/{file.name}", _shown(file)) for file in sorted((_HERE / "static").iterdir())]


def _shown(file: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    content, kind = file.read_bytes(), mimetypes.guess_type(file.name)[0]

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, headers={"Cache-Control": "max-age=300"})

    return show


def tell_missing(doors: web.Application, who: Callable[[web.Request], Visitor | None]) -> None:
    """Who came with a browser to an address where nothing is finds the way back; who has signed in, the
    search too."""
    pages = Pages()

    @web.middleware
    async def tell(request: web.Request, handler: Answer) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            if "text/html" not in request.headers.get("Accept", ""):
                raise
            return pages.tell("refused.html", 404, who(request), "there is no page at this address")

    doors.middlewares.append(tell)


def guarded(doors: web.Application, *, secure: bool) -> None:
    """Every answer says what browsers may do with it, whoever gave it."""

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("X-Frame-Options", "DENY")
        response.headers.setdefault("Referrer-Policy", "same-origin")
        if secure:
            response.headers.setdefault("Strict-Transport-Security", _FOR_A_YEAR)

    doors.on_response_prepare.append(add)
