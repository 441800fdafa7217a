"""What would happen to a job: decided as its first steps decide, by what Sectra and the archives tell now.
They are only asked, and nothing is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from gateway.archives.arrived import arrived_name
from gateway.archives.lookup import Found, Known, Lookup, NotYet, Wanted
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.dicom.identity import Identity
from gateway.jobs.records import Job, Origin
from gateway.sectra.client import SectraClient
from gateway.sectra.messages import ImageInfo
from gateway.sectra.servers import SectraServers
from gateway.settings.sections import Accept, Application
from gateway.work.agreement import asked_of, check_match, require_named
from gateway.work.slide_way import require_slide
from gateway.work.study_way import URGENT
from gateway.work.suitability import check_slide
from gateway.work.vendors import Vendors

Would = Literal["send", "call", "wait", "try again later", "be held for a person", "fail"]


@dataclass(frozen=True, slots=True)
class Subject:
    """`read`: what Sectra tells of the slide is known as far as a study is looked for by it. `past`: of a job
    that there is, whose token may have died meanwhile."""

    asked: Identity
    slide_id: str | None = None
    client: Callable[[], SectraClient] | None = None
    read: bool = False
    past: bool = False
    arrived_for: str | None = None  # the application that the study was sent to us for

    @classmethod
    def of(cls, job: Job, servers: SectraServers) -> Self:
        def client() -> SectraClient:
            place = job.server or "", job.callback_url or "", job.application, job.callback_token
            return servers.client(*place, own=job.callback_accepted)

        return cls(
            asked_of(job),
            job.slide_id,
            None if job.slide_id is None else client,
            job.slide_width is not None,
            True,
            job.application if job.origin is Origin.SENT else None,
        )

    def __repr__(self) -> str:
        return "Subject()"


@dataclass(frozen=True, slots=True)
class Foreseen:
    """`untold`: what is now in the way of knowing it, which may be otherwise another time."""

    would: Would
    why: str = ""
    advice: str = ""
    until: datetime | None = None
    remarks: tuple[str, ...] = ()
    archive: str | None = None
    found: Found | None = None  # none where only the download tells what is there
    failure: Failure | None = None

    @property
    def untold(self) -> bool:
        return self.would in ("wait", "try again later")


class Foresight:
    """`known`: which objects are results that went through us. `of_slides`: the archives that are a slide's
    own files."""

    def __init__(
        self,
        vendors: Vendors,
        lookup: Lookup,
        of_slides: Collection[str],
        known: Callable[[Collection[str]], Awaitable[Collection[str]]],
    ) -> None:
        self._vendors = vendors
        self._lookup = lookup
        self._of_slides = of_slides
        self._known: Known = known

    async def foresee(self, application: Application, subject: Subject, priority: int) -> Foreseen:
        try:
            return await self._foresee(application, subject, urgent=priority >= URGENT)
        except NotYet as wait:
            advice = "A job of priority 9 doesn't wait for an archive's hours."
            if wait.trouble is not None:
                advice = wait.trouble.advice
            return Foreseen("wait", wait.why, advice, wait.at, wait.remarks, failure=wait.trouble)
        except Failure as failure:
            would: Would = "fail"
            if isinstance(failure, Retryable):
                would = "try again later"
            elif isinstance(failure, NeedsHuman):
                would = "be held for a person"
            return Foreseen(would, failure.message, failure.advice, failure=failure)

    async def _foresee(self, application: Application, subject: Subject, *, urgent: bool) -> Foreseen:
        if subject.client is not None and not (subject.read and not asks_of_slides(application.accept)):
            info = await self._ask_sectra(subject, subject.client)
            check_slide(application.accept, info)
            subject = replace(subject, asked=_completed(subject.asked, info))
        if self._vendors.works_on_slide(application.adapter):
            require_slide(subject.slide_id)
            return Foreseen("call")
        require_named(subject.asked)
        names = list(application.archives)
        if subject.arrived_for is not None:
            names = [arrived_name(subject.arrived_for), *names]
        wanted = Wanted(
            subject.asked,
            application.accept.modalities,
            application.choose,
            urgent=urgent,
            when_unreachable=application.when_unreachable,
        )
        downloaded = next((name for name in names if name in self._of_slides), None)
        if downloaded is None or subject.slide_id is None:
            return await self._look(names, wanted)
        before = names[: names.index(downloaded)]
        try:
            return await self._look(before, wanted)
        except Permanent:
            remark = f"{downloaded}: what the slide's own files hold is known only once they are downloaded"
            return Foreseen("send", archive=downloaded, remarks=(remark,))

    async def _ask_sectra(self, subject: Subject, client: Callable[[], SectraClient]) -> ImageInfo:
        try:
            return await client().slide_info(subject.slide_id or "", phi=True)
        except NeedsHuman as failure:
            if not subject.past:
                raise
            raise Retryable(
                f"Sectra has to tell of the slide again: {failure.message}", failure.advice
            ) from None

    async def _look(self, names: Sequence[str], wanted: Wanted) -> Foreseen:
        found = await self._lookup.find(names, wanted, self._known)
        found.check()
        check_match(wanted.asked, found.study)
        return Foreseen("send", remarks=found.remarks, archive=found.archive, found=found)


def asks_of_slides(accept: Accept) -> bool:
    """Whether it takes what only Sectra tells of a slide to know if it is accepted."""
    return accept.model_copy(update={"modalities": [], "max_bytes": None}) != Accept()


def _completed(asked: Identity, info: ImageInfo) -> Identity:
    return replace(
        asked,
        study_instance_uid=asked.study_instance_uid or info.study_instance_uid or "",
        accession_number=asked.accession_number or info.accession_number or "",
        issuer_of_accession_number=info.accession_number_issuer or "",
        study_id=info.exam_id or "",
    )
