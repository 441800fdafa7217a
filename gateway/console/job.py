"""One job: what is the matter and what to do, the way that it took, what was proved, and its history."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

from aiohttp import web

from gateway.console import journey, matter, wording
from gateway.console.jobs import draw_line, read_told
from gateway.console.looking import read_look
from gateway.console.pages import FORM, Desk, Guard, to
from gateway.contract import Finding
from gateway.delivery.pictures import findings_of, places_of
from gateway.delivery.shapes import words
from gateway.intake.looks import Looks
from gateway.intake.problems import Problem
from gateway.intake.views import tell_analyses, view
from gateway.intake.visits import Visitor
from gateway.jobs.chain import find_break
from gateway.jobs.records import Job, Said
from gateway.jobs.states import ALIVE, State
from gateway.jobs.store import Refused, Store
from gateway.settings.sections import Settings

_STEPS = ("promised", "sent", "acknowledged", "received", "stored")
_MOST_FINDINGS = 12
_MEANT = {
    "promised": "by the archive",
    "sent": "to the vendor",
    "acknowledged": "by the vendor",
    "received": "from the vendor",
    "stored": "and read back",
}
_OF = {"Images": _STEPS[:3], "Results": _STEPS[3:]}


class JobPage:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._looks = Looks(desk.store, "console")

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/jobs/{id}", guard("viewer", self._show)),
            web.get("/jobs/{id}/raw", guard("operator", self._show_raw)),
            web.post("/jobs/{id}/choose", guard("operator", self._choose)),
        ]

    async def _show(self, request: web.Request, visitor: Visitor) -> web.Response:
        store, settings = self._desk.store, self._desk.settings
        begun = request.match_info["id"]
        if (whole_id := await self._complete(begun)) is not None:
            return to(f"/jobs/{whole_id}")
        job = await find_job(self._desk.store, request)
        events, deliveries, pauses = await asyncio.gather(
            store.events_of(job.id), store.deliveries_of(job.id), store.pauses()
        )
        steps = journey.tell_way(job, events)
        stop = await matter.find_stop(store, job, deliveries, pauses)
        identified = visitor.may("operator")
        offered = matter.choices_of(job, events) if identified else []
        findings: list[Finding] = []
        summary, told = "", list[Said]()
        if identified:
            await self._looks.note(visitor.name, job.id)
            if told := await store.words_of(job.id):
                await self._looks.note_words(visitor.name, job.id)
            whole = await store.get(job.id)
            if whole is not None and whole.result is not None:
                findings, summary = findings_of(whole), str(whole.result.get("summary") or "")
        told_of = matter.words_when_held(told) if offered else {}
        return self._desk.show(
            visitor,
            "job.html",
            "jobs",
            job=job,
            line=draw_line(settings, job, matter.who_cancelled(events) if identified else ""),
            identified=identified,
            subjects=_subjects(job) if identified else [],
            came_to=_came_to(job),
            acts=matter.acts_on(job, stop) if identified else [],
            interesting=identified and _may_be_shown(self._desk, job),
            choices={study: str(told_of.get(study, "")) for study in offered},
            said=told,
            own_words=[] if offered else matter.words_on_the_matter(job, events, deliveries, told),
            steps=steps,
            at_vendor=await matter.look_at_vendor(store, job, steps),
            proof=_proof(job),
            findings=[words(each) for each in findings[:_MOST_FINDINGS]],
            found=len(findings),
            summary=summary,
            analyses=tell_analyses(events),
            link=_link(settings, job) if identified else "",
            slide=identified and job.slide_id is not None and job.server is not None,
            pictures=len(places_of(findings)),
            deliveries=deliveries,
            undelivered=_why_undelivered(job),
            called=partial(wording.name_peer, settings),
            events=events,
            broken=find_break(job.id, events),
            reference=(job.ticket or {}).get("reference"),
            contact=_contact(self._desk, job),
            told=read_told(request),
            stop=stop,
            looked=await read_look(self._desk, request),
            paused={each.peer for each in pauses},
            alive=job.state in ALIVE,
            address=request.path_qs if "looked" in request.query else request.path,
        )

    async def _complete(self, begun: str) -> UUID | None:
        """The id that begins so, if it isn't whole."""
        digits = begun.replace("-", "")
        if not re.fullmatch("[0-9a-fA-F]{4,31}", digits):
            return None
        found = await self._desk.store.find_by_prefix(digits)
        if len(found) > 1:
            raise Problem(404, "several jobs have an id that begins so: give more of it")
        return next(iter(found), None)

    async def _show_raw(self, request: web.Request, visitor: Visitor) -> web.Response:
        """What peers said stands here too, which `said_of` tells the audit."""
        store = self._desk.store
        job = await find_job(self._desk.store, request)
        await self._looks.note(visitor.name, job.id)
        events, deliveries = await store.events_of(job.id), await store.deliveries_of(job.id)
        said = await store.said_of(job.id, visitor.name)
        raw = view(job, events, deliveries, said).model_dump_json(indent=2)
        return self._desk.show(visitor, "raw.html", "jobs", job=job, raw=raw)

    async def _choose(self, request: web.Request, visitor: Visitor) -> web.Response:
        job = await find_job(self._desk.store, request)
        try:
            await self._desk.store.resume(
                job.id, visitor.name, study_instance_uid=request[FORM].get("study", "")
            )
        except Refused as refused:
            raise Problem(409, str(refused)) from None
        return to(f"/jobs/{job.id}?told=resume-1")


async def find_job(store: Store, request: web.Request) -> Job:
    try:
        job = await store.glance(UUID(request.match_info["id"]))
    except ValueError:
        job = None
    if job is None:
        raise Problem(404, "there is no job of this id; the search box takes any identifier")
    return job


def _subjects(job: Job) -> list[tuple[str, str]]:
    known = {
        "Accession": job.accession_number,
        "Study": job.study_instance_uid,
        "Slide": job.slide_id,
        "Exam": job.exam_id,
    }
    return [(name, value) for name, value in known.items() if value]


def _link(settings: Settings, job: Job) -> str:
    """Into Sectra, if a server says how its links are made, and this job has what they name."""
    servers = settings.sectra.servers
    known = servers.get(job.server or "") or (next(iter(servers.values())) if len(servers) == 1 else None)
    if known is None or known.link is None:
        return ""
    names = re.findall(r"\{(\w+)\}", known.link)
    if not all(getattr(job, name) for name in names):
        return ""
    return known.link.format(**{name: quote(getattr(job, name), safe="") for name in names})


def _came_to(job: Job) -> str:
    """What being done means."""
    if job.canary:
        return "Done: the vendor answered a test study of nobody, and its result is delivered nowhere"
    if job.beside:
        return "Done: the vendor is only tried, and its result is delivered nowhere"
    return "Done: the result is where it belongs"


def _why_undelivered(job: Job) -> str:
    """Of one without deliveries."""
    if job.canary:
        return "None: it was about nobody."
    if job.beside:
        return "None: the vendor is only tried."
    match job.state:
        case State.FAILED:
            return "None: it failed before anything was delivered."
        case State.CANCELLED:
            return "None: it was cancelled before anything was delivered."
        case State.DONE:
            return "None: nothing was to be delivered."
        case _:
            return "None yet: there is no result so far."


def _may_be_shown(desk: Desk, job: Job) -> bool:
    """To its vendor, by a person to whom the study matters."""
    return job.ticket is not None and not matter.is_unasked_for(job) and desk.shows(job.adapter)


def _proof(job: Job) -> list[dict[str, Any]]:
    """`of`: where another kind of thing begins to be counted, what it is."""
    counts = {name: getattr(job, name) for name in _STEPS}
    return [
        {
            "of": of if place == 0 else "",
            "name": name,
            "meant": _MEANT[name],
            "count": counts[name],
            "width": round(200 * (counts[name] or 0) / (max(counts[each] or 0 for each in names) or 1)),
        }
        for of, names in _OF.items()
        for place, name in enumerate(names)
    ]


def _contact(desk: Desk, job: Job) -> str:
    department = desk.settings.departments.get(job.department)
    return "" if department is None else department.contact
