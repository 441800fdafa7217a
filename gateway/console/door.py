"""The console's door: signing in and out, and who is let into which page. The audit says who came, went or
was refused."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import structlog
from aiohttp import web

from gateway.archives.sectra import Slides
from gateway.circuits import Circuits
from gateway.console.acts import Acts
from gateway.console.api import Api
from gateway.console.audit import Audit
from gateway.console.configuration import Configuration
from gateway.console.interest import InterestButton
from gateway.console.job import JobPage
from gateway.console.jobs import Jobs
from gateway.console.now import Now
from gateway.console.oidc import RETURN, Errand, NotSignedIn, SignInService
from gateway.console.pages import FORM, Desk, ForVisitors, Handler, Page, Pages, attached, to
from gateway.console.peers import Peers
from gateway.console.picture import PicturePage
from gateway.console.quality import Quality
from gateway.console.search import Search
from gateway.console.slide import SlidePage
from gateway.contract import Failure, Permanent
from gateway.delivery.pictures import Pictures
from gateway.intake.access import Access
from gateway.intake.bodies import read_form
from gateway.intake.guesses import Guesses
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor, Visits
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.trouble import why
from gateway.settings.sections import Role, Settings
from gateway.work.interest import Interest

log = structlog.get_logger(__name__)

SIGN_IN = "/sign-in"
_LONGEST = 1000
_NO_DATABASE = "the database can't be reached; check database_url and that the server runs"
_ROOMS = Now, Jobs, Acts, JobPage, Search, Peers, Quality, Audit, Configuration, Api


class ConsoleDoor:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        access: Access,
        visits: Visits,
        guesses: Guesses,
        service: SignInService | None,
        pictures: tuple[Pictures, Slides] | None = None,
        interest: Interest | None = None,
        circuits: Circuits | None = None,
    ) -> None:
        """`pictures`: where images and slides can be looked at again. `circuits`: by which a pause is in
        force here at once."""
        self._settings = settings
        self._store = store
        self._access = access
        self._visits = visits
        self._guesses = guesses
        self.service = service
        self._pages = Pages()
        desk = Desk(settings, store, self._pages, circuits or store)
        if interest is not None:
            desk = replace(desk, shows=interest.is_taken_by)
        self._rooms: list[Page] = [room(desk) for room in _ROOMS]
        if interest is not None:
            self._rooms.append(InterestButton(desk, interest))
        if pictures is not None:
            self._rooms += [PicturePage(desk, pictures[0]), SlidePage(desk, pictures[1])]

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(SIGN_IN, self._told(self._ask)),
            web.post(SIGN_IN, self._told(self._sign_in)),
            web.get(f"{SIGN_IN}/oidc", self._told(self._send_away)),
            web.get(RETURN, self._told(self._welcome_back)),
            web.post("/sign-out", self._told(self._sign_out)),
            *attached(),
            *(route for room in self._rooms for route in room.routes(self.for_visitors)),
        ]

    def for_visitors(self, role: Role, handler: ForVisitors) -> Handler:
        """A page for those who have signed in with at least this role; its forms repeat their token."""

        async def answer(request: web.Request) -> web.Response:
            visitor = self._visits.visitor(request) or self._with_token(request)
            if visitor is None:
                return self._send_to_entry(request)
            if request.method not in ("GET", "HEAD"):
                form = await read_form(request)
                self._visits.require_own_form(request, form.get("csrf", ""), visitor.csrf)
                request[FORM] = form
            if not visitor.may(role):
                raise Problem(403, f"this takes the role {role}; you have signed in as {visitor.role}")
            return await handler(request, visitor)

        return self._told(answer)

    def _with_token(self, request: web.Request) -> Visitor | None:
        """Who only looks may show a token, as for the API; no browser does so by itself."""
        known = self._access.bearer(request) if request.method in ("GET", "HEAD") else None
        return None if known is None else Visitor(known.name, known.role, "token", "", time.time())

    def _send_to_entry(self, request: web.Request) -> web.Response:
        """Where they wanted to go is kept sealed: no address that anybody else made leads them away."""
        response = to(SIGN_IN)
        if request.method == "GET" and len(request.path_qs) <= _LONGEST:
            self._visits.keep_entry(response, {**self._visits.enter(request), "wanted": request.path_qs})
        return response

    def _told(self, handler: Handler) -> Handler:
        """Refusals are pages too."""

        async def answer(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except Problem as problem:
                visitor = self._visits.visitor(request)
                page = self._pages.tell("refused.html", problem.status, visitor, problem.detail)
                page.headers.update(problem.headers)
                return page
            except (DatabaseError, OSError) as trouble:
                log.warning("a page couldn't be shown", page=request.path, error=type(trouble).__name__)
                sentence = why(trouble) if isinstance(trouble, DatabaseError) else _NO_DATABASE
                return self._pages.tell("broken.html", 503, self._visits.visitor(request), sentence)

        return answer

    async def _ask(self, request: web.Request) -> web.Response:
        if self._visits.visitor(request) is not None:
            return to("/")
        return self._show_entry(request)

    def _show_entry(self, request: web.Request, sentence: str = "", status: int = 200) -> web.Response:
        entry = self._visits.enter(request)
        page = self._pages.show(
            "sign_in.html", status, csrf=entry["csrf"], oidc=self.service is not None, sentence=sentence
        )
        self._visits.keep_entry(page, {name: entry[name] for name in ("csrf", "wanted") if name in entry})
        return page

    # -- coming and going -----------------------------------------------------------------------------

    async def _sign_in(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        entry = self._visits.enter(request)
        self._visits.require_own_form(request, form.get("csrf", ""), entry["csrf"])
        self._guesses.hear_out(request)
        known = self._access.known(form.get("token", "").strip().encode(errors="replace"))
        if known is None:
            await self._guesses.note(request)  # which tells the audit of all of them
            return self._show_entry(request, "This token isn't known here.", 401)
        response = to(entry.get("wanted", "/"))
        self._visits.begin_with_token(response, known.sha256)
        await self._note("signed in", known.name, request, "token")
        return response

    async def _send_away(self, request: web.Request) -> web.Response:
        self._visits.require_window(request)
        self._guesses.hear_out(request)
        try:
            url, errand = await self._require_service().begin()
        except (NotSignedIn, Failure) as failure:
            return await self._refuse(request, failure, 502)
        response = to(url)
        self._visits.keep_entry(response, {**self._visits.enter(request), **asdict(errand)})
        return response

    async def _welcome_back(self, request: web.Request) -> web.Response:
        self._visits.require_window(request)
        self._guesses.hear_out(request)
        entry = self._visits.enter(request)
        try:
            if "state" not in entry or request.query.get("state") != entry["state"]:
                raise NotSignedIn("this sign-in wasn't begun here, or too long ago: begin it again")
            errand = Errand(entry["state"], entry["nonce"], entry["verifier"])
            person = await self._require_service().finish(errand, request.query)
        except NotSignedIn as refused:
            return await self._refuse(request, refused, 403)
        except Failure as failure:
            return await self._refuse(request, failure, 403 if isinstance(failure, Permanent) else 502)
        oidc = self._settings.console.oidc
        if oidc is None or oidc.roles.role_of(person.groups) is None:
            unknown = NotSignedIn(f"{person.name} is in no group that has a role here (console.oidc.roles)")
            return await self._refuse(request, unknown, 403)
        response = to(entry.get("wanted", "/"))
        self._visits.begin_with_oidc(response, person.name, person.groups)
        await self._note("signed in", person.name, request, "oidc", subject=person.subject)
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        visitor = self._visits.visitor(request)
        response = to(SIGN_IN)
        if visitor is None:  # or another site's page asks: a browser keeps the cookie from that
            return response
        form = await read_form(request)
        self._visits.require_own_form(request, form.get("csrf", ""), visitor.csrf)
        await self._note("signed out", visitor.name, request, visitor.by)
        await self._visits.end(request, response)
        return response

    def _require_service(self) -> SignInService:
        if self.service is None:
            raise Problem(404, "no sign-in service is configured (console.oidc)")
        return self.service

    async def _refuse(self, request: web.Request, why: Exception, status: int) -> web.Response:
        sentence = why.sentences if isinstance(why, Failure) else str(why)
        address = self._guesses.address(request)
        log.warning("refused a sign-in", by="oidc", address=address, why=sentence)
        await self._store.note_in_audit(
            "nobody", "sign-in refused", {"by": "oidc", "from": address, "why": sentence}
        )
        if status == 403:  # that the service is away is nobody's guess
            await self._guesses.note(request)
        said = sentence[:1].upper() + sentence[1:]
        return self._show_entry(request, said if said.endswith(".") else f"{said}.", status)

    async def _note(self, what: str, who: str, request: web.Request, by: str, **more: str) -> None:
        address = self._guesses.address(request)
        log.info(what, who=who, by=by, address=address)
        await self._store.note_in_audit(who, what, {"by": by, "from": address, **more})
