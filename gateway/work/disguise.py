"""What a vendor is told that may not know whose study it gets, and what it tells, led back to the patient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

from gateway.contract import Document, Finding, Finished, Instance, NeedsHuman, Order, Retryable
from gateway.delivery.hl7 import escape
from gateway.dicom.part10 import NotDicom
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.privacy.header import HeaderRewriter
from gateway.privacy.known import Facts
from gateway.privacy.profile import Rules
from gateway.privacy.pseudonyms import DAY, ISSUER, Pseudonyms
from gateway.privacy.returning import UNTOUCHED, OnSlide, WayBack
from gateway.privacy.rewriting import rewrite, rewritten_header
from gateway.settings.sections import Settings
from gateway.settings.shadows import application_named


class Disguise:
    """Of one job. Whatever it issues is kept before anybody outside hears of it."""

    def __init__(self, store: Store, job: Job, rules: Rules, pseudonyms: Pseudonyms) -> None:
        self._store = store
        self._job = job
        self._pseudonyms = pseudonyms
        known = {each for each in (job.patient_id, job.accession_number) if each}
        self._rewriter = HeaderRewriter(rules, self._pseudonyms, Facts(words=known))

    def alias(self, uid: str) -> str:
        return self._pseudonyms.uid(uid)

    async def announce(self, uids: Iterable[str]) -> None:
        """Issue and keep at once what is known to be needed, rather than instance by instance."""
        for uid in uids:
            self.alias(uid)
        await self.keep()

    async def order(self, order: Order) -> Order:
        """What names the slide, its user or its place in the hospital stays here."""

        def number(kind: str, original: str | None) -> str | None:
            return self._pseudonyms.of(kind, original) if original else None

        told = replace(
            order,
            study_instance_uid=self.alias(order.study_instance_uid),
            accession_number=number("accession", order.accession_number),
            accession_number_issuer=None,
            exam_id=number("study", order.exam_id),
            slide_id=None,
            input=None,
            context={},
            image_info=None,
        )
        await self.keep()
        return told

    async def instance(self, instance: Instance) -> Instance:
        disguised = _Disguised(instance, self._rewriter, self)
        await self.keep()
        return disguised

    def rewritten(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One instance. Unsuitable or NotDicom before any of it has left, if it may not leave."""
        return rewrite(chunks, self._rewriter, self.keep)

    async def keep(self) -> None:
        issued = self._pseudonyms.unkept()
        await self._store.keep_issued(
            self._job.id, {alias: (original.kind, original.value) for alias, original in issued.items()}
        )
        self._pseudonyms.keep(issued)


class Disguises:
    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._rules: dict[str, Rules] = {}

    async def of(self, job: Job) -> Disguise | None:
        """None: the vendor may know whose study it is."""
        found = application_named(self._settings, job.application)
        if found is None or not (profile := found.deidentify):
            return None
        if profile not in self._rules:
            self._rules[profile] = Rules(self._settings.profiles[profile])
        key = await self._store.department_key(job.department)
        issuer = await self._store.issued_as(job.id, ISSUER)
        pseudonyms = Pseudonyms(key, None if issuer is None else issuer[1])
        return Disguise(self._store, job, self._rules[profile], pseudonyms)

    async def on_slide(self, job: Job) -> OnSlide | None:
        """None, where nothing was issued for the job."""
        issued, _ = await self._issued(job)
        return OnSlide(issued) if issued else None

    async def restore(self, job: Job, finished: Finished) -> Finished:
        """Whatever the configuration says by now: what was issued for the job is led back."""
        issued, days = await self._issued(job)
        if not issued:
            return finished
        back = WayBack(issued, days)
        await asyncio.to_thread(_restore_objects, back, finished.dicom)
        slide = finished.slide
        return replace(
            finished,
            summary=back.text(finished.summary),
            failed=tuple(map(back.text, finished.failed)),
            findings=tuple(_restore_finding(back, finding) for finding in finished.findings),
            properties=back.value(finished.properties),
            slide=slide
            and replace(
                slide,
                display_result=back.text(slide.display_result),
                display_properties=back.value(slide.display_properties),
                data=back.value(slide.data),
            ),
            placed=back.value(finished.placed),
            hl7=tuple(back.message(each, escape) for each in finished.hl7),
            documents=tuple(map(_say_untouched, finished.documents)),
        )

    async def _issued(self, job: Job) -> tuple[dict[str, str], dict[str, str]]:
        """What each pseudonym stands for, and each day."""
        issued = {each: told for each, (_, told) in (await self._store.issued_for(job.id)).items()}
        issued.pop(ISSUER, None)
        days = {each: issued.pop(each) for each in [*issued] if each.startswith(DAY)}
        return issued, {each.removeprefix(DAY): told for each, told in days.items()}


class _Disguised:
    def __init__(self, instance: Instance, rewriter: HeaderRewriter, disguise: Disguise) -> None:
        self.header = rewritten_header(instance.header, rewriter)
        self._instance = instance
        self._disguise = disguise

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._disguise.rewritten(self._instance.chunks()):
                yield piece
        except NotDicom:
            raise NeedsHuman(
                "an instance of the study can't be de-identified: its header can't be read",
                "Nothing of it was sent. Have the archive check the study, then resume the job.",
            ) from None


def _restore_objects(back: WayBack, paths: tuple[Path, ...]) -> None:
    for path in paths:
        try:
            back.object(path)
        except NotDicom:
            raise Retryable(
                "the vendor returned an object that can't be led back to its patient",
                "If this goes on, tell the vendor.",
            ) from None


def _restore_finding(back: WayBack, finding: Finding) -> Finding:
    return replace(
        finding,
        label=back.text(finding.label),
        measure=finding.measure and back.text(finding.measure),
        sop_instance_uid=finding.sop_instance_uid and back.text(finding.sop_instance_uid),
    )


def _say_untouched(document: Document) -> Document:
    return replace(document, title=f"{document.title} {UNTOUCHED}")
