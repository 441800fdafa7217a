"""Destinations beside the slide: archives that take a job's result objects, a RIS that is told of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.spool import Spool
from gateway.contract import Failure, Finished, Health, NeedsHuman
from gateway.delivery import mllp
from gateway.delivery.archive import Stored, store
from gateway.delivery.commitment import Commitments
from gateway.delivery.dispatch import Delivered
from gateway.delivery.hl7 import Addressing, Message, Observation, compose, readdress
from gateway.delivery.originals import Originals
from gateway.delivery.pdf import set_in_pages
from gateway.delivery.readback import THERE, Standing, read_back
from gateway.delivery.report_forms import FORMS, Form
from gateway.delivery.result_objects import Prepared, ResultObjects, application_of
from gateway.dicom.storing import describe, describe_all
from gateway.dicom.subject import Subject
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.privacy.returning import SAID_OF_DOCUMENT, UNTOUCHED
from gateway.settings.certificates import calling
from gateway.settings.sections import Hl7Destination, Settings
from gateway.settings.tree import Misconfigured

if TYPE_CHECKING:
    from gateway.archives.dimse import DimseArchive
    from gateway.delivery.wording import Wording

_MOST_RENAMINGS = 3
_LARGEST_DOCUMENT = 32 * 2**20


class Keeper(Protocol):
    """An archive, by whichever transport. `proof`: how it is known that it has what was stored."""

    proof: str

    async def look(self, files: Sequence[Path], study_instance_uid: str) -> Mapping[str, Standing]:
        """What it has already under these UIDs."""
        ...

    async def store(
        self, files: Sequence[Path], study_instance_uid: str, plainer: Collection[str] = ()
    ) -> Stored:
        """`plainer`: the UIDs of those that there are in an older form too, should it refuse them."""
        ...


class ByStow:
    proof = "read back"

    def __init__(self, archive: DicomwebArchive) -> None:
        self._archive = archive

    async def look(self, files: Sequence[Path], study_instance_uid: str) -> Mapping[str, Standing]:  # noqa: ARG002
        return await read_back(self._archive, files)

    async def store(
        self, files: Sequence[Path], study_instance_uid: str, plainer: Collection[str] = ()
    ) -> Stored:
        return await store(self._archive.session, self._archive, files, study_instance_uid, plainer)


class ByCStore:
    """The archive commits itself to what it got, or is asked whether it lists it."""

    proof = "confirmed"

    def __init__(self, archive: DimseArchive, commitments: Commitments) -> None:
        self._archive = archive
        self._commitments = commitments

    async def look(self, files: Sequence[Path], study_instance_uid: str) -> Mapping[str, Standing]:
        try:
            listed = await self._archive.list_instances(study_instance_uid)
        except Failure:  # it answers us no queries: then its commitment has to do
            listed = []
        return await read_back(self._archive, files, {instance.sop_instance_uid for instance in listed})

    async def store(
        self, files: Sequence[Path], study_instance_uid: str, plainer: Collection[str] = ()
    ) -> Stored:
        from gateway.delivery import dimse

        peer = self._archive.peer
        return await dimse.store(peer, files, study_instance_uid, self._commitments, plainer=plainer)


class IntoArchive:
    """Where the archive holds something else under a result's UID, that stays what it is, and the result goes
    there under a UID of its own. What it has already isn't stored again. A report made here leaves as the
    newest kind, and as an older one only after the archive has refused that."""

    def __init__(self, name: str, keeper: Keeper, result_objects: ResultObjects) -> None:
        self._name = name
        self._keeper = keeper
        self._result_objects = result_objects

    async def deliver(self, job: Job, finished: Finished) -> Delivered:
        if job.study_instance_uid is None and (finished.dicom or finished.findings):
            raise NeedsHuman("the job has lost its study", "Retry the job from the beginning.")
        prepared, stored = await self._store(job, finished)
        if not prepared.objects:
            return Delivered("there is no object to store", stored=0)
        if stored.not_taken and (not prepared.made or len(stored.not_taken) == len(prepared.objects)):
            reasons = describe_all(stored.not_taken.values())
            raise NeedsHuman(
                f"{len(stored.not_taken)} of {len(prepared.objects)} results are of a kind that the"
                f" destination doesn't take: {reasons}",
                "Have it accept them (what it does take is there), then resume the job.",
            )
        return told_of(prepared, stored, self._keeper.proof)

    async def _store(self, job: Job, finished: Finished) -> tuple[Prepared, Stored]:
        refused: list[str] = []
        for form in FORMS:
            prepared, standings = await self._prepare(job, finished, form)
            lacking = [made.path for made in prepared.objects if standings[made.leaves_as] not in THERE]
            stored = Stored(0, None)
            if lacking:
                plainer = [] if form is FORMS[-1] else [prepared.report]
                stored = await self._keeper.store(lacking, job.study_instance_uid or "", plainer)
            if (reason := stored.not_taken.get(prepared.report)) is None:
                break
            refused.append(f"{form.name}: {describe(reason)}")
        else:
            return prepared, stored
        if refused:
            said = f"the report is there as {form.name}, refused as {'; as '.join(refused)}"
            prepared = replace(prepared, remarks=(*prepared.remarks, said))
        return prepared, stored

    async def _prepare(
        self, job: Job, finished: Finished, form: Form
    ) -> tuple[Prepared, Mapping[str, Standing]]:
        taken: Counter[str] = Counter()
        for _ in range(_MOST_RENAMINGS):
            prepared = await self._result_objects.prepare(job, finished, self._name, taken, form)
            standings = await self._keeper.look(prepared.files, job.study_instance_uid or "")
            others = [
                made.came_as for made in prepared.objects if standings[made.leaves_as] is Standing.OTHER
            ]
            if not others:
                break
            taken.update(others)
        if taken:
            said = f"{len(taken)} under another UID: something else stands there under the one that it had"
            prepared = replace(prepared, remarks=(*prepared.remarks, said))
        return prepared, standings


def told_of(prepared: Prepared, stored: Stored, proof: str) -> Delivered:
    """Only what came from the vendor is counted against what came from the vendor."""
    count = len(prepared.objects) - len(stored.not_taken)
    made = " made of the findings" if prepared.made else ""
    left_out = [f"{uid}: {describe(reason)}" for uid, reason in stored.not_taken.items()]
    remarks = (*prepared.remarks, *stored.remarks, *left_out)
    said = f"; {'; '.join(remarks)}" if remarks else ""
    what = f"{count} objects{made} stored and {proof}{said}"
    return Delivered(what, stored.reference, 0 if prepared.made else count)


class IntoRis:
    """By HL7 over MLLP: one message for each that the vendor gives ready, else one of our own."""

    def __init__(
        self,
        name: str,
        place: Hl7Destination,
        settings: Settings,
        store: Store,
        originals: Originals,
        spool: Spool,
    ) -> None:
        self._name = name
        self._place = place
        self._settings = settings
        self._store = store
        self._originals = originals
        self._spool = spool
        self._to = Addressing(
            place.sending_application,
            place.sending_facility,
            place.receiving_application,
            place.receiving_facility,
        )
        self._wordings = _wordings(name, place, settings)
        tls = None if place.tls is None else calling(f"destinations.{name}.tls", place.tls)
        self._listener = mllp.Listener(
            f"destination {name}", place.host, place.port, tls, send_again=place.send_again
        )

    async def deliver(self, job: Job, finished: Finished) -> Delivered:
        if job.study_instance_uid is None:
            raise NeedsHuman(
                "the job has no study, so the RIS can't be told whose result it is",
                "Complete the slide's request in Sectra, then retry the job.",
            )
        folder = self._spool.folder(job.id) / f"leaving-{self._name}"
        await asyncio.to_thread(folder.mkdir, mode=0o700, exist_ok=True)
        subject = await self._originals.subject_of(job, folder)
        messages = await self._write(job, finished, subject)
        accepted = await self._accepted(job)
        for number, message in enumerate(messages, 1):
            if message.control_id in accepted:
                continue
            await mllp.send(self._listener, message)
            accepted.append(message.control_id)
            if number < len(messages):  # so that none of them is sent again when the next one fails
                what = f"the RIS accepted {number} of {len(messages)} HL7 messages"
                await self._store.record_delivery(
                    job, self._name, "pending", what, reference=", ".join(accepted), tried=False
                )
        ids = ", ".join(message.control_id for message in messages)
        return Delivered(f"accepted by the RIS: {len(messages)} HL7 message(s)", ids)

    async def _accepted(self, job: Job) -> list[str]:
        deliveries = await self._store.deliveries_of(job.id)
        said = [each.reference or "" for each in deliveries if each.destination == self._name]
        return [control_id for reference in said for control_id in reference.split(", ") if control_id]

    async def check(self) -> Health:
        return await mllp.check(self._listener)

    async def _write(self, job: Job, finished: Finished, subject: Subject) -> list[Message]:
        from gateway.delivery.wording import Wording

        seed = f"{job.id}/{self._name}"
        wording = self._wordings.get(job.department)
        if finished.hl7 and wording is None and self._place.format == "text":
            return [
                readdress(ready, subject, self._to, f"{seed}/{number}")
                for number, ready in enumerate(finished.hl7)
            ]
        application = application_of(self._settings, job)
        wording = wording or Wording()
        text = wording.fill(finished, subject, application.display_name, application.manufacturer)
        if wording.whole:
            return [readdress(text, subject, self._to, seed)]
        pdf = None
        if self._place.format == "pdf":
            text, pdf = await asyncio.to_thread(with_document, finished, text)
        observation = Observation(job.application, application.display_name, text, job.created_at, pdf)
        return [compose(subject, observation, self._to, seed)]


def with_document(finished: Finished, text: str) -> tuple[str, bytes]:
    """The vendor's own, if it gave one: where it names the patient by a pseudonym, the text says so."""
    for document in finished.documents:
        if document.media_type.partition(";")[0].strip().lower() == "application/pdf":
            if document.path.stat().st_size > _LARGEST_DOCUMENT:
                raise NeedsHuman(
                    "the vendor's report is larger than a message to the RIS can be",
                    "Set the destination's format to text, then resume the job.",
                )
            if document.title.endswith(UNTOUCHED):
                text = f"{text.rstrip()}\n{SAID_OF_DOCUMENT}"
            return text, document.path.read_bytes()
    return text, set_in_pages(text)


def _wordings(name: str, place: Hl7Destination, settings: Settings) -> Mapping[str, Wording]:
    """By department: its own template, else the destination's."""
    from gateway.delivery.wording import BadTemplate, Wording

    wordings: dict[str, Wording] = {}
    problems = []
    for department, part in settings.departments.items():
        own = part.hl7.template if part.hl7 is not None else None
        where = f"departments.{department}.hl7.template" if own else f"destinations.{name}.template"
        try:
            if source := own or place.template:
                wordings[department] = Wording(source)
        except BadTemplate as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise Misconfigured(dict.fromkeys(problems))
    return wordings
