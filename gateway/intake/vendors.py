"""The door for vendors that call back: /adapters/{name}/… Each call needs the token of a living job, and is
recorded in that job, whatever becomes of it. What may pass is the adapter's to say, within its errand.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from uuid import UUID

import structlog
from aiohttp import web

from gateway.contract import Call, Failure, Handler, Route
from gateway.delivery.slide import SlideWriter
from gateway.delivery.slide_status import SlideStatus
from gateway.delivery.vendor_results import VendorResults
from gateway.intake.access import RIGHT
from gateway.intake.problems import Problem, WrongToken
from gateway.intake.slide_access import SlideAccess, explain_failure
from gateway.intake.streams import Streams
from gateway.intake.uploads import Uploads
from gateway.intake.vendor_call import OUTRUN, VendorCall
from gateway.jobs.store import Store
from gateway.jobs.store.grants import Grant
from gateway.settings.quantities import Rate
from gateway.settings.sections import Settings
from gateway.work.disguise import Disguises
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

_PATIENCE = 2.0  # seconds that a call too many is held back before it is refused
_BUCKETS = 10_000


class VendorDoor:
    def __init__(
        self, settings: Settings, store: Store, vendors: Vendors, status: SlideStatus, writer: SlideWriter
    ) -> None:
        self._settings = settings
        self._store = store
        self._vendors = vendors
        self._status = status
        self._results = VendorResults(store, writer)
        self._disguises = Disguises(store, settings)
        self._streams = Streams(self._ended_of)
        self._uploads = Uploads()
        self._buckets: OrderedDict[UUID, Bucket] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        found: list[web.RouteDef] = []
        for name, own in self._vendors.routes.items():
            unknown = Route("*", "{rest:(/.*)?}", _refuse)
            for route in (*own, unknown) if own else ():
                what = "an unknown call" if route is unknown else f"{route.method} {route.path}"
                serve = partial(self._serve, name=name, handle=route.handle, what=what)
                found.append(web.route(route.method, f"/adapters/{name}{route.path}", serve))
        return found

    async def close(self, _: web.Application) -> None:
        await self._streams.close()

    async def _serve(
        self, request: web.Request, *, name: str, handle: Handler, what: str
    ) -> web.StreamResponse:
        given = await self._store.begin_call(name, _token(request), what)
        if given is None:
            raise WrongToken(401, "this token isn't one of a job of yours")
        request[RIGHT] = True
        if given.outrun:
            log.warning("a vendor's call was refused: another was first", adapter=name, job=str(given.job.id))
            raise Problem(401, OUTRUN)
        if given.reach == "nothing":
            log.warning("a vendor's call was refused: its job has ended", adapter=name, job=str(given.job.id))
            raise Problem(401, "the job that this token belongs to has ended")
        if not await self._take_turn(given.job.id, self._vendors.rates[name]):
            await self._store.end_tile(given, what, 0, "refused: too many calls")
            raise Problem(429, "too many calls for one job; slow down", {"Retry-After": "1"})
        try:
            call = self._call(request, given, what)
        except Failure as failure:
            await self._store.end_call(given, what, 0, failure.message)
            return explain_failure(failure)
        try:
            with self._uploads.turn(given.job.id, request):
                return await handle(request, call)
        except Problem as problem:
            call.outcome = f"refused: {problem.detail}"
            raise
        except Failure as failure:
            call.outcome = f"failed: {failure.message}"
            return explain_failure(failure)
        finally:
            end = self._store.end_tile if call.is_tile else self._store.end_call
            await asyncio.shield(end(given, call.what, call.size, call.outcome))

    def _call(self, request: web.Request, given: Grant, what: str) -> VendorCall:
        job = given.job
        if job.slide_id is None:
            return VendorCall(given, self._store, what)
        found = self._settings.application(job.application)
        return SlideAccess(
            request,
            given,
            self._status.client_of(job).passage(),
            self._store,
            self._results,
            self._streams,
            self._disguises,
            allow_phi=found is not None and found[1].allow_phi,
        )

    async def _ended_of(self, job_ids: Collection[UUID]) -> set[UUID]:
        await self._store.touch_grants(job_ids)
        reach = await self._store.reach_of(job_ids)
        return {job_id for job_id in job_ids if reach.get(job_id) != "all"}

    async def _take_turn(self, job_id: UUID, rate: Rate) -> bool:
        bucket = self._buckets.setdefault(job_id, Bucket(rate))
        self._buckets.move_to_end(job_id)
        if len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        wait = bucket.take()
        if wait > _PATIENCE:
            bucket.give_back()
            return False
        await asyncio.sleep(wait)
        return True


class Bucket:
    """So many calls at once as a period allows, then one each time a share of it has passed. Each process
    counts for itself."""

    def __init__(self, rate: Rate) -> None:
        self._share = rate.seconds / rate.count
        self._period = rate.seconds
        self._free_at = 0.0

    def take(self) -> float:
        """Seconds to wait."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - self._period) + self._share
        return max(0.0, self._free_at - now)

    def give_back(self) -> None:
        self._free_at -= self._share


async def _refuse(request: web.Request, call: Call) -> web.StreamResponse:  # noqa: ARG001 (a handler's)
    return call.refuse(404, "there is nothing at this address that a vendor may call")


def _token(request: web.Request) -> str:
    found = re.fullmatch(r"[Bb]earer +([\w.~+/=-]{1,512})", request.headers.get("Authorization", ""))
    return found[1] if found else ""
