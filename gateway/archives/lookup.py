"""Where a study is: the application's archives in order, and for each one passed over, why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gateway.archives.archive import Archive, InstanceRef, StudyMatch
from gateway.archives.breaker import Breaker
from gateway.archives.choice import attributes_for, choose_instances, made_by
from gateway.archives.sectra import Slide, SlideArchive
from gateway.archives.terms import Pulls, Terms
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable, Unsuitable
from gateway.settings.sections import Choose

# Which of these SOP instance UIDs are results that went through us before.
Known = Callable[[Collection[str]], Awaitable[Collection[str]]]

_ASK_AGAIN = timedelta(minutes=5)  # an archive in trouble, while another one is waited for


@dataclass(frozen=True, slots=True)
class Wanted:
    """`urgent`: it doesn't wait for an archive's hours."""

    study_instance_uid: str | None
    accession_number: str | None
    patient_id: str | None
    modalities: Sequence[str] = ()
    choose: Choose = field(default_factory=Choose)
    urgent: bool = False
    slide: Slide | None = None

    def __repr__(self) -> str:
        return "Wanted()"


@dataclass(frozen=True, slots=True)
class Found:
    """`listed`: how many instances the archive has of the study; those to send are `instances`."""

    archive: str
    study: StudyMatch
    instances: tuple[InstanceRef, ...]
    listed: int
    left_out: Mapping[str, int]  # how many, by why
    remarks: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    @property
    def emptiness(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        held = ", ".join(self.kinds) or "nothing"
        said = f"the study has nothing for this application: it holds {held}"
        return f"{said}; left out: {reasons}" if reasons else said

    def check(self) -> None:
        """Whether there is anything for the application: judged only once the study is complete."""
        if self.instances:
            return
        raise Unsuitable(
            self.emptiness,
            "Choose another application, or widen its accept.modalities or choose.",
            detail={"archives": list(self.remarks)},
        )


class NotYet(Exception):
    """The study is there, but may be fetched only from a known moment on. Waiting costs no attempt."""

    def __init__(self, at: datetime, why: str, remarks: Sequence[str]) -> None:
        super().__init__(why)
        self.at = at
        self.why = why
        self.remarks = tuple(remarks)


@dataclass(slots=True)
class _Walk:
    """What was met on the way through the archives."""

    remarks: list[str] = field(default_factory=list)
    trouble: Failure | None = None
    unfit: Found | None = None  # a study without anything for the application
    openings: list[tuple[datetime, str]] = field(default_factory=list)

    def meet(self, name: str, failure: Failure) -> None:
        self.remarks.append(f"{name}: {failure.message}")
        if self.trouble is None:
            self.trouble = failure

    def wait(self, name: str, at: datetime, why: str) -> None:
        self.remarks.append(f"{name}: {why}")
        self.openings.append((at, f"{name}: {why}"))

    def end(self, names: Sequence[str]) -> Found:
        if self.openings:
            at, why = min(self.openings)
            if isinstance(self.trouble, Retryable):
                at = min(at, datetime.now().astimezone() + _ASK_AGAIN)
            raise NotYet(at, why, self.remarks)
        if self.trouble is not None:
            self.trouble.detail.setdefault("archives", list(self.remarks))
            raise self.trouble
        if self.unfit is not None:
            return replace(self.unfit, remarks=tuple(self.remarks))
        raise Permanent(
            f"no archive has the study (asked: {', '.join(names)})",
            "Check that the study was archived, and its study UID or accession number.",
            detail={"archives": self.remarks},
        )


class Lookup:
    """`makers`: the manufacturers of the configured vendors, whose results are nobody's input. `of_slides`:
    the archives that give a job the files of its own slide."""

    def __init__(
        self,
        archives: Mapping[str, Archive],
        terms: Mapping[str, Terms],
        makers: Collection[str] = (),
        of_slides: Collection[str] = (),
    ) -> None:
        self._archives = archives
        self._of_slides = frozenset(of_slides)
        self._terms = {name: terms.get(name, Terms()) for name in archives}
        self._pulls = {name: Pulls(self._terms[name].rate) for name in archives}
        self._breakers: dict[str, Breaker] = {}
        self._makers = frozenset(maker for maker in makers if maker)

    def archive(self, name: str, slide: Slide | None = None) -> Archive:
        if name not in self._archives:
            raise NeedsHuman(
                f"the archive {name} of this job is no longer configured",
                f"Put archives.{name} back into the configuration, or cancel the job.",
            )
        return SlideArchive(name, slide) if name in self._of_slides else self._archives[name]

    def _breaker(self, name: str, slide: Slide | None) -> Breaker:
        """Each Sectra server is up or away by itself."""
        place = f"{name}/{slide.server}" if slide is not None and name in self._of_slides else name
        return self._breakers.setdefault(place, Breaker(place))

    def opens_at(self, name: str, *, urgent: bool) -> datetime | None:
        """When a study may be fetched there again; None if it may be now."""
        return None if urgent or name not in self._terms else self._terms[name].opens_at()

    def give_back(self, found: Found) -> None:
        """The study isn't fetched now after all: it doesn't count for the archive's rate."""
        self._pulls[found.archive].give_back()

    async def find(self, names: Sequence[str], wanted: Wanted, known: Known | None = None) -> Found:
        """The first archive that has anything of the study for the application, and may be used. Raises
        NotYet where a wait will help."""
        walk = _Walk()
        for question in _questions(wanted):
            for name in names:
                found = await self._try(name, question, wanted, known, walk)
                if found is not None:
                    return found
            if walk.trouble is not None or walk.openings or walk.unfit is not None:
                break  # one of them may still have it under the UID that it was asked for by
        return walk.end(names)

    async def _try(
        self, name: str, question: Mapping[str, str | None], wanted: Wanted, known: Known | None, walk: _Walk
    ) -> Found | None:
        archive, terms, pulls = self.archive(name, wanted.slide), self._terms[name], self._pulls[name]
        by = "" if "study_instance_uid" in question else " under the accession number"
        try:
            studies = await self._breaker(name, wanted.slide).call(lambda: archive.find_studies(**question))
        except Failure as failure:
            walk.meet(name, failure)
            return None
        if not studies:
            walk.remarks.append(f"{name}: the study isn't there{by}")
            return None
        study = _the_one(name, studies)
        if terms.only_online and study.availability not in (None, "ONLINE"):
            walk.remarks.append(f"{name}: the study is there, but {study.availability}, not ONLINE")
            walk.trouble = walk.trouble or Retryable(
                f"the study is {study.availability} in {name}, and only ONLINE studies are fetched there",
                "Have the study restored, or wait until it is.",
            )
            return None
        opening = self.opens_at(name, urgent=wanted.urgent)
        if opening is not None:
            why = f"outside of its hours ({terms.hours_as_written}), open again at {opening:%Y-%m-%d %H:%M}"
            walk.wait(name, opening, f"the study is there, but it is {why}")
            return None
        if not pulls.free():
            self._wait_for_rate(name, walk)
            return None
        if study.availability is None:
            walk.remarks.append(f"{name}: doesn't tell availability; taken as ONLINE")
        if wanted.study_instance_uid is not None and by:
            walk.remarks.append(f"{name}: found by its accession number, not by the study UID that was given")
        try:
            found = await self._describe(archive, study, wanted, known, walk.remarks)
        except Failure as failure:
            walk.meet(name, failure)
            return None
        if not found.instances:
            walk.remarks.append(f"{name}: {found.emptiness}")
            walk.unfit = walk.unfit or found
            return None
        if not pulls.free():  # somebody was faster
            self._wait_for_rate(name, walk)
            return None
        pulls.take()
        return found

    def _wait_for_rate(self, name: str, walk: _Walk) -> None:
        rate, at = self._terms[name].rate, self._pulls[name].free_at()
        assert rate is not None
        why = f"{rate.count} studies were fetched within {rate.seconds:g} s already, next at {at:%H:%M:%S}"
        walk.wait(name, at, f"the study is there, but {why}")

    async def _describe(
        self,
        archive: Archive,
        study: StudyMatch,
        wanted: Wanted,
        known: Known | None,
        remarks: Sequence[str],
    ) -> Found:
        keywords = attributes_for(wanted.choose, self._makers)
        listed = await self._list(archive, study, keywords, wanted.slide)
        made = made_by(listed, self._makers)
        if made:
            listed = await self._list(archive, study, (*keywords, "ImageType"), wanted.slide)
            made = made_by(listed, self._makers)
        delivered = await known([one.sop_instance_uid for one in listed]) if known is not None else ()
        choice = choose_instances(listed, wanted.choose, wanted.modalities, delivered=delivered, made=made)
        return Found(
            archive.name,
            study,
            choice.instances,
            len(listed),
            choice.left_out,
            (*remarks, *(f"{archive.name}: {remark}" for remark in choice.remarks)),
            tuple(sorted({one.modality or "unknown" for one in listed})),
        )

    async def _list(
        self, archive: Archive, study: StudyMatch, keywords: Collection[str], slide: Slide | None
    ) -> list[InstanceRef]:
        uid, count = study.study_instance_uid, study.instance_count
        listed = await self._breaker(archive.name, slide).call(
            lambda: archive.list_instances(uid, count, keywords)
        )
        if count is not None and len(listed) != count:
            raise Retryable(
                f"{archive.name} promises {count} instances and lists {len(listed)}",
                "The study may still be arriving; if this goes on, have the archive check it.",
            )
        return listed


def _questions(wanted: Wanted) -> Iterator[Mapping[str, str | None]]:
    """By study UID first; what no archive knows by it, then by accession number and patient id."""
    if wanted.study_instance_uid is not None:
        yield {"study_instance_uid": wanted.study_instance_uid}
    if wanted.accession_number is not None or wanted.study_instance_uid is None:
        yield {"accession_number": wanted.accession_number, "patient_id": wanted.patient_id}


def _the_one(name: str, studies: Sequence[StudyMatch]) -> StudyMatch:
    by_uid = {study.study_instance_uid: study for study in studies}
    if len(by_uid) > 1:
        raise NeedsHuman(
            f"{len(by_uid)} studies in {name} match the accession number",
            "Resume the job with the study_instance_uid of the right one; the job's history lists them.",
            detail={"choices": sorted(by_uid)},
        )
    return next(iter(by_uid.values()))
