"""What a job shows on its slide before the result is there, and when it doesn't come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace

import structlog

from gateway.contract import Failure, Finished, NeedsHuman, Permanent, SlideResult, Unreachable
from gateway.delivery.drawings import present
from gateway.delivery.slide import UNKNOWN_SIZE, Author, Size, SlideWriter, sign
from gateway.dicom.part10 import NotDicom, read_header
from gateway.gate import Gate, Unguarded
from gateway.jobs.records import Job, Place, area_of
from gateway.jobs.states import WORKING, State
from gateway.sectra.client import SectraClient
from gateway.sectra.results import StoredResult
from gateway.sectra.servers import SectraServers

log = structlog.get_logger(__name__)

_PROGRESS_LIMIT = 3.0  # progress is a courtesy: the work doesn't wait for it
_REMEMBERED = 10_000
_UNDER_WAY = {
    State.SUBMITTING: "sending",
    State.ANALYSING: "the vendor is at work",
    State.DELIVERING: "storing the results",
}
_ENDED = {
    State.FAILED: "analysis failed",
    State.HELD: "analysis on hold",
    State.CANCELLED: "analysis cancelled",
}


def sign_of(job: Job, size: Size | None = None) -> SlideResult:
    """What there is to say of a job without a result, as it stands now."""
    size = size or size_of(job)
    if job.waits_for is not None and job.waits_why and job.state in WORKING:
        return sign(f"analysis: {job.waits_why}", size, {"Status": job.waits_why})
    if job.state in _UNDER_WAY:
        words = _UNDER_WAY[job.state]
        return sign(f"analysis: {words}", size, {"Status": words})
    if job.state not in _ENDED:
        return sign("analysis queued", size, {"Progress": "0 %"})
    words = _ENDED[job.state]
    told = {"Status": job.state.value, "Reason": job.error_message or "", "Advice": job.error_advice or ""}
    if job.error_message:
        words = f"{words}: {job.error_message}"
    return sign(words, size, {name: text for name, text in told.items() if text})


class SlideStatus:
    def __init__(self, writer: SlideWriter, servers: SectraServers, gate: Gate | None = None) -> None:
        self._writer = writer
        self._gate = gate or Unguarded()
        self._servers = servers
        self._shown: dict[object, tuple[str, str]] = {}

    def client_of(self, job: Job) -> SectraClient:
        if job.server is None or job.callback_url is None:
            raise NeedsHuman("the job has no Sectra server to report to", "Ask again from Sectra.")
        place = job.server, job.callback_url, job.application, job.callback_token
        return self._servers.client(*place, own=job.callback_accepted)

    async def was_let_in(self, job: Job) -> bool:
        """Whether it is Sectra's own invocation, though its token may be refused by now."""
        if job.callback_accepted or await self._writer.has_stored(place_of(job), author_of(job)):
            return True
        return job.slide_id is not None and await self.client_of(job).lets_in(job.slide_id)

    async def show(self, job: Job, result: SlideResult) -> StoredResult | None:
        return await self._put(job, author_of(job), result)

    async def _put(self, job: Job, author: Author, result: SlideResult) -> StoredResult | None:
        return await self._writer.show(self.client_of(job), place_of(job), author, result)

    async def acknowledge(self, job: Job, *, first: bool = False) -> StoredResult | None:
        """The job's sign as Sectra stored it, or what stands there of this job already. `first`: it has the
        right to store the first, which goes back unless that was tried."""
        client, place, author = self.client_of(job), place_of(job), author_of(job)
        if first:
            async with self._writer.giving_up(place):
                return await self._writer.put_first(
                    client, place, author, await self._fitting_sign(job, client)
                )
        if job.slide_width is None and not await self._writer.is_known(place, author):
            return await self._writer.ensure(client, place, author, await self._fitting_sign(job, client))
        return await self._writer.ensure(client, place, author, sign_of(job))

    async def _fitting_sign(self, job: Job, client: SectraClient) -> SlideResult:
        assert job.slide_id is not None
        info = await client.slide_info(job.slide_id, extended=False)
        size = info.image_size
        return sign_of(job, None if size is None else (size.width, size.height))

    async def show_queued(self, job: Job) -> None:
        """Only if nothing of this job stands there yet: the acknowledgement usually has done it."""
        if not await self._writer.is_known(place_of(job), author_of(job)):
            await self._show_in_passing(job, sign_of(job))

    async def show_progress(self, job: Job, note: str, progress: float | None) -> bool:
        """Whether it stands there now, as far as it is to stand there at all."""
        if job.slide_id is None:
            return True
        share = "" if progress is None else f"{round(progress * 100)} %"
        if self._shown.get(job.id) == (note, share):
            return True
        properties = {"Status": note, **({"Progress": share} if share else {})}
        if not await self._show_in_passing(job, sign(f"analysis: {note}", size_of(job), properties)):
            return False
        if len(self._shown) > _REMEMBERED:
            self._shown.clear()
        self._shown[job.id] = (note, share)
        return True

    async def _show_in_passing(self, job: Job, result: SlideResult) -> bool:
        """Whether it was tried to an end."""
        peer = f"sectra.{job.server}"
        try:
            await self._gate.require(peer)
            async with asyncio.timeout(_PROGRESS_LIMIT):
                await self.show(job, result)
        except (Failure, TimeoutError) as trouble:
            log.warning("progress couldn't be shown on the slide", job=str(job.id), error=str(trouble))
            if isinstance(trouble, Unreachable):
                trouble.blame(peer)
                await self._gate.met(trouble, job.id)
            return False
        return True

    async def show_end(self, job: Job) -> None:
        self._shown.pop(job.id, None)
        # What a vendor has put there itself stays readable while only its delivery elsewhere is held up.
        author = replace(author_of(job), last=job.held_in != State.DELIVERING)
        await self._put(job, author, sign_of(job))

    async def show_nothing(self, job: Job, finished: Finished) -> None:
        """The vendor puts nothing on the slide."""
        said = sign(f"no result: {finished.summary}", size_of(job), {"Status": "done"})
        await self._put(job, replace(author_of(job), last=True), said)

    async def series_of(self, job: Job, study: Collection[str]) -> str | None:
        """Which series of the study the slide is: Sectra says so, there is but one, or its files tell."""
        assert job.slide_id is not None
        client = self.client_of(job)
        info = await client.slide_info(job.slide_id, phi=True)
        if info.series_instance_uid is not None or len(study) == 1:
            return info.series_instance_uid or next(iter(study))
        with suppress(NeedsHuman, Permanent, NotDicom):  # then nobody knows
            async with aclosing(client.slide_files(job.slide_id)) as files:
                first = await anext(files, None)
                return None if first is None else await _series_in(first.chunks())
        return None

    async def show_result(
        self, job: Job, finished: Finished, widths: Mapping[str, int]
    ) -> StoredResult | None:
        self._shown.pop(job.id, None)
        author = replace(author_of(job), sign=False)
        result = present(finished, size_of(job), widths)
        if job.unasked is not None:
            told = f"from {job.archive}; {job.unasked}, which may have more of it, couldn't be asked"
            result = replace(result, display_properties={**result.display_properties, "Study": told})
        return await self._put(job, author, result)


async def _series_in(chunks: AsyncIterator[bytes | memoryview]) -> str | None:
    taken = bytearray()
    async for chunk in chunks:
        taken += chunk
        if (header := read_header(bytes(taken))) is not None:
            return header.series_instance_uid
    return None


def size_of(job: Job) -> Size:
    if job.slide_width is None or job.slide_height is None:
        return UNKNOWN_SIZE
    return job.slide_width, job.slide_height


def place_of(job: Job) -> Place:
    return Place(job.server or "", job.application, job.slide_id or "", area_of(job.input))


def author_of(job: Job) -> Author:
    return Author(job.id, job.created_at, job.fence)
