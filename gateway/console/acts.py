"""What is done to jobs: asked once, with the exact number, then done to so many or to none."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from gateway.console import wording
from gateway.console.filters import Asked, read_filter, read_query, require_known
from gateway.console.pages import FORM, Desk, Guard, to
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor
from gateway.jobs.store import Refused
from gateway.jobs.store.batches import Act, tell_left

_MEANING: dict[Act, str] = {
    "resume": "Held jobs go on where they were held.",
    "retry": "What waits or failed is tried again at once; what failed for good begins again.",
    "cancel": "They end without a result, and the slide says so. This can’t be undone.",
}
_ALONE = "If it is done, it is sent once more, as a new job."
_FORM = ("csrf", "do", "filter", "expect")


class Acts:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [
            web.get("/jobs/act", guard("operator", self._ask)),
            web.post("/jobs/act", guard("operator", self._do)),
        ]

    async def _ask(self, request: web.Request, visitor: Visitor) -> web.Response:
        act = _read_act(request.query.get("do", ""))
        asked = read_filter(request.query.items(), ("do", "chosen"))
        if "chosen" in request.query and not asked.filter.id:
            raise Problem(422, "no job was chosen: mark some in the list, or act on all that match")
        return await self._show(visitor, act, asked)

    async def _do(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = request[FORM]
        for name in request.query:
            require_known(name, ())
        for name in form:
            require_known(name, _FORM)
        act, asked = _read_act(form.get("do", "")), read_query(form.get("filter", ""))
        expect = form.get("expect", "")
        if not expect.isdecimal() or len(expect) > 9:
            raise Problem(422, "this form is none of ours: load the page again")
        try:
            if (alone := asked.only_one_job()) is not None:
                place = await self._act(act, alone, visitor.name)
                return to(_with(place, f"told={act}-1"))
            acted = await self._desk.store.act_on_all(act, asked.filter, visitor.name, int(expect))
        except Refused as refused:
            return await self._show(visitor, act, asked, str(refused))
        if acted.passed_over:
            return await self._show(visitor, act, asked, outcome=acted.tell(act))
        return to(_with(_back(asked), f"told={act}-{len(acted.done)}"))

    async def _act(self, act: Act, alone: UUID, who: str) -> str:
        """Where it is seen."""
        store = self._desk.store
        if await store.glance(alone) is None:
            raise Problem(404, "there is no job of this id")
        match act:
            case "resume":
                job = await store.resume(alone, who)
            case "retry":
                job = await store.retry(alone, who)
            case "cancel":
                job = await store.cancel(alone, who)
        return f"/jobs/{job.id}"

    async def _show(
        self, visitor: Visitor, act: Act, asked: Asked, refusal: str = "", outcome: str = ""
    ) -> web.Response:
        """`outcome`: what was done to some, and not to others."""
        alone, store = asked.only_one_job() is not None, self._desk.store
        number = 1 if alone else await store.count_for(act, asked.filter)
        left = {} if alone else await store.count_left(act, asked.filter)
        return self._desk.show(
            visitor,
            "act.html",
            "jobs",
            act=act,
            asked=asked,
            number=number,
            chips=asked.chips(self._desk.settings),
            question=f"{act.capitalize()} {'' if asked.values else 'ALL '}{wording.count(number, 'job')}?",
            meaning=f"{_MEANING[act]} {_ALONE}" if alone and act == "retry" else _MEANING[act],
            back=_back(asked),
            refusal=refusal,
            outcome=outcome,
            left=tell_left(left) if left else "",
        )


def _read_act(given: str) -> Act:
    for act in _MEANING:
        if act == given:
            return act
    raise Problem(422, "jobs can be resumed, retried or cancelled, and nothing else")


def _back(asked: Asked) -> str:
    alone = asked.only_one_job()
    if alone is not None:
        return f"/jobs/{alone}"
    return f"/jobs?{asked.query}" if asked.query else "/jobs"


def _with(address: str, more: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}{more}"
