"""The button by which a job's study is pointed out to its vendor."""

from __future__ import annotations

from aiohttp import web

from gateway.console.job import find_job
from gateway.console.pages import Desk, Guard, to
from gateway.contract import Failure, Permanent
from gateway.intake.problems import Problem
from gateway.intake.visits import Visitor
from gateway.work.interest import Interest


class InterestButton:
    def __init__(self, desk: Desk, interest: Interest) -> None:
        self._desk = desk
        self._interest = interest

    def routes(self, guard: Guard) -> list[web.RouteDef]:
        return [web.post("/jobs/{id}/interesting", guard("operator", self._point_out))]

    async def _point_out(self, request: web.Request, visitor: Visitor) -> web.Response:
        job = await find_job(self._desk.store, request)
        try:
            await self._interest.point_out(job, visitor.name)
        except Failure as failure:
            raise Problem(409 if isinstance(failure, Permanent) else 502, failure.sentences) from None
        return to(f"/jobs/{job.id}?told=interesting-1")
