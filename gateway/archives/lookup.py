"""Where a study is: the application's archives in order, and for each one passed over, why."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NoReturn, TypeVar

from gateway.archives.archive import Archive, InstanceRef, StudyMatch
from gateway.archives.arrived import ARRIVED
from gateway.archives.bucket import PEER as SPOOL
from gateway.archives.choice import attributes_for, choose_instances, made_by
from gateway.archives.lookout import Lookout
from gateway.archives.sectra import Slide, SlideArchive
from gateway.archives.terms import Ledger, OwnLedger, Pulls, Terms
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable, Unreachable, Unsuitable, blaming
from gateway.dicom.identity import Identity, differences, require_agreement
from gateway.gate import Gate, Unguarded
from gateway.settings.sections import Choose

T = TypeVar("T")

# Which of these SOP instance UIDs are results that went through us before.
Known = Callable[[Collection[str]], Awaitable[Collection[str]]]

THERE = "the study is there, but"  # begins why it isn't to be had now
_ASK_AGAIN = timedelta(minutes=5)  # an archive in trouble, while another one is waited for
_TWICE = "Have the archive sort out whose images they are, then resume the job."
_AWAY = timedelta(seconds=5)  # at the least, before one that can't be reached is asked again


@dataclass(frozen=True, slots=True)
class Wanted:
    """`asked`: all that is known of the study. `urgent`: it doesn't wait for an archive's hours. `beside`: it
    takes nobody's place there."""

    asked: Identity
    modalities: Sequence[str] = ()
    choose: Choose = field(default_factory=Choose)
    urgent: bool = False
    beside: bool = False
    slide: Slide | None = None
    when_unreachable: Literal["wait", "next"] = "wait"

    def __repr__(self) -> str:
        return "Wanted()"


@dataclass(frozen=True, slots=True)
class Found:
    """`listed`: all that the archive has of the study; those to send are `instances`."""

    archive: str
    study: StudyMatch
    instances: tuple[InstanceRef, ...]
    listed: tuple[InstanceRef, ...]
    left_out: Mapping[str, int]  # how many, by why
    remarks: tuple[str, ...]
    unasked: tuple[str, ...] = ()  # archives before this one that couldn't be asked

    @property
    def emptiness(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        held = ", ".join(sorted({each.modality or "unknown" for each in self.listed})) or "nothing"
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
    """The study can be looked for or fetched only from a known moment on. Waiting costs no attempt."""

    def __init__(
        self, at: datetime, why: str, remarks: Sequence[str], trouble: Unreachable | None = None
    ) -> None:
        super().__init__(why)
        self.at = at
        self.why = why
        self.remarks = tuple(remarks)
        self.trouble = trouble


@dataclass(slots=True)
class _Walk:
    """What was met on the way through the archives."""

    remarks: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    unfit: Found | None = None  # a study without anything for the application
    passed: list[tuple[str, StudyMatch]] = field(default_factory=list)  # there, but not to be had now
    openings: list[tuple[datetime, str]] = field(default_factory=list)
    trouble: Failure | None = None  # what may pass before what doesn't

    def say(self, name: str, remark: str) -> None:
        self.remarks.append(f"{name}: {remark}")

    def meet(self, name: str, failure: Failure) -> None:
        failure.blame(f"archives.{name}")
        self.say(name, failure.message)
        if self.trouble is None or (isinstance(failure, Retryable) and isinstance(self.trouble, Permanent)):
            self.trouble = failure

    def wait(self, name: str, at: datetime, why: str) -> None:
        self.say(name, why)
        self.openings.append((at, f"{name}: {why}"))

    def break_off(self, name: str, failure: Failure) -> NoReturn:
        """Only who says that it doesn't have the study is passed over: the next one may have a part of it."""
        failure.blame(f"archives.{name}")
        self.say(name, failure.message)
        self.fail(name, failure)

    def fail(self, name: str, failure: Failure) -> NoReturn:
        if isinstance(failure, Unreachable):
            at = datetime.now().astimezone() + max(_AWAY, timedelta(seconds=failure.after or 0))
            raise NotYet(at, f"{name} can't be reached", self.remarks, failure) from None
        failure.detail.setdefault("archives", list(self.remarks))
        raise failure

    def end(self, names: Sequence[str]) -> Found:
        if self.openings:
            at, why = min(self.openings)
            if isinstance(self.trouble, Retryable):
                at = min(at, datetime.now().astimezone() + _ASK_AGAIN)
            raise NotYet(at, why, self.remarks)
        if self.trouble is not None:
            self.fail(", ".join(self.unasked), self.trouble)
        if self.unfit is not None:
            return replace(self.unfit, remarks=tuple(self.remarks))
        raise Permanent(
            f"no archive has the study (asked: {', '.join(names)})",
            "Check that the study was archived, and its study UID or accession number.",
            detail={"archives": self.remarks},
        )


class Lookup:
    """`makers`: the manufacturers of the configured vendors, whose results are nobody's input. `of_slides`:
    the archives that give a job the files of its own slide. `gate`: of those that are known to be away."""

    def __init__(
        self,
        archives: Mapping[str, Archive],
        terms: Mapping[str, Terms],
        makers: Collection[str] = (),
        of_slides: Collection[str] = (),
        gate: Gate | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._archives = archives
        self._of_slides = frozenset(of_slides)
        self._terms = {name: terms.get(name, Terms()) for name in archives}
        self._ledger = ledger or OwnLedger()
        self._lookouts: dict[str, Lookout] = {}
        self._gate = gate or Unguarded()
        self._makers = frozenset(maker for maker in makers if maker)

    def archive(self, name: str, slide: Slide | None = None) -> Archive:
        if name not in self._archives:
            raise NeedsHuman(
                f"the archive {name} of this job is no longer configured",
                f"Put archives.{name} back into the configuration, or cancel the job.",
            )
        return SlideArchive(name, slide) if name in self._of_slides else self._archives[name]

    def peer_of(self, name: str, server: str | None) -> str:
        """Each Sectra server is up or away by itself; so is where lies what was sent to us."""
        if name.startswith(ARRIVED):
            return SPOOL
        return f"sectra.{server}" if server is not None and name in self._of_slides else f"archives.{name}"

    @asynccontextmanager
    async def reading(self, name: str, slide: Slide | None) -> AsyncIterator[Archive]:
        """What fails meanwhile is this archive's doing, not of whoever is to have what is read there."""
        async with self._asking(name, slide):
            yield self.archive(name, slide)

    async def _call(self, name: str, slide: Slide | None, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._asking(name, slide) as peer:
            return await self._lookouts.setdefault(peer, Lookout(name)).call(ask)

    @asynccontextmanager
    async def _asking(self, name: str, slide: Slide | None) -> AsyncIterator[str]:
        peer = self.peer_of(name, None if slide is None else slide.server)
        await self._gate.require(peer)
        with blaming(peer), self._gate.calling(peer):
            yield peer
        await self._gate.heard(peer)

    def opens_at(self, name: str, *, urgent: bool, now: datetime | None = None) -> datetime | None:
        """When a study may be fetched there again; None if it may be now."""
        return None if urgent or name not in self._terms else self._terms[name].opens_at(now)

    def only_look(self) -> None:
        """For those who fetch nothing: what they find counts for no archive's rate."""
        self._ledger = OwnLedger()

    def at_any_time(self) -> Lookup:
        """For those who ask what would be, whenever it was: another one, whose archives are always open."""
        terms = {name: Terms(only_online=each.only_online) for name, each in self._terms.items()}
        return Lookup(self._archives, terms, self._makers, self._of_slides, self._gate)

    async def give_back(self, found: Found) -> None:
        """The study isn't fetched now after all: it doesn't count for the archive's rate."""
        rate = self._terms[found.archive].rate
        if rate is None:
            return

        def change(kept: Mapping[str, Any], _: float) -> tuple[Mapping[str, Any], None]:
            pulls = Pulls(rate, kept)
            pulls.give_back()
            return pulls.keep(), None

        await self._ledger.change_pulls(found.archive, change)

    async def find(self, names: Sequence[str], wanted: Wanted, known: Known | None = None) -> Found:
        """The first archive that has anything of the study for the application, and may be used. Raises
        NotYet where a wait will help."""
        walk = _Walk()
        for question in _questions(wanted):
            for name in names:
                try:
                    found = await self._try(name, question, wanted, known, walk)
                except Unsuitable as failure:  # what it has can't be sent to anybody
                    walk.meet(name, failure)
                except Failure as failure:
                    walk.break_off(name, failure)
                else:
                    if found is not None:
                        return found
            if walk.trouble is not None or walk.openings or walk.unfit is not None:
                break  # one of them may still have it under the UID that it was asked for by
        else:
            await self._compare_patients(names, wanted)
        return walk.end(names)

    async def _compare_patients(self, names: Sequence[str], wanted: Wanted) -> None:
        """What no archive knows of this patient may be there as another one's: then one of both is wrong."""
        asked = wanted.asked
        if not (asked.accession_number and asked.patient_id):
            return
        for name in names:
            try:
                studies = await self._ask(name, {"accession_number": asked.accession_number}, wanted)
            except Failure:
                continue  # it has said already that it doesn't have the study
            known = Identity(patient_id=asked.patient_id)
            if studies and all(differences(known, study.identity) for study in studies):
                raise NeedsHuman(
                    f"the studies under this accession number in {name} are of another patient",
                    "Check the patient id and the accession number: if one was mistaken, cancel this job and"
                    " ask again; if the archive has the wrong one, have it corrected, then resume the job.",
                    detail={"differs": ["patient id"]},
                )

    async def find_again(self, name: str, wanted: Wanted, known: Known | None = None) -> Found:
        """What the archive that has the study has of it by now."""
        question = {"study_instance_uid": wanted.asked.study_instance_uid}
        found = await self._ask(name, question, wanted)
        if not found:
            raise Retryable(
                f"{name} doesn't have the study any more",
                "Have the archive checked; retry the job from the beginning if it lies elsewhere now.",
            )
        return await self._describe(name, found[0], wanted, known, _Walk())

    async def _ask(self, name: str, question: Mapping[str, str], wanted: Wanted) -> list[StudyMatch]:
        archive = self.archive(name, wanted.slide)
        return await self._call(name, wanted.slide, lambda: archive.find_studies(**question))

    async def _try(
        self, name: str, question: Mapping[str, str], wanted: Wanted, known: Known | None, walk: _Walk
    ) -> Found | None:
        by = "" if "study_instance_uid" in question else " under the accession number"
        try:
            studies = await self._ask(name, question, wanted)
        except Retryable as failure:
            if wanted.when_unreachable == "wait":
                raise
            await self._gate.met(failure)
            walk.meet(name, failure)
            walk.unasked.append(name)
            return None
        if not studies:
            walk.say(name, f"the study isn't there{by}")
            return None
        study = _the_one(name, studies, wanted.asked)
        if await self._has_to_wait(name, study, wanted, walk):
            walk.passed.append((name, study))
            return None
        if study.availability is None:
            walk.say(name, "doesn't tell availability; taken as ONLINE")
        if wanted.asked.study_instance_uid and by:
            walk.say(name, "found by its accession number, not by the study UID that was given")
        found = await self._describe(name, study, wanted, known, walk)
        if not found.instances:
            walk.say(name, found.emptiness)
            walk.unfit = walk.unfit or found
            return None
        if await self._is_a_part(found, wanted, known, walk):
            return None
        if not await self._has_turn(name, wanted, walk, take=True):  # somebody was faster
            walk.passed.append((name, study))
            return None
        return found

    async def _has_to_wait(self, name: str, study: StudyMatch, wanted: Wanted, walk: _Walk) -> bool:
        terms = self._terms[name]
        if terms.only_online and study.availability not in (None, "ONLINE"):
            only = f"the study is {study.availability} in {name}, and only ONLINE studies are fetched there"
            walk.meet(name, Retryable(only, "Have the study restored, or wait until it is."))
            return True
        opening = self.opens_at(name, urgent=wanted.urgent)
        if opening is not None:
            why = f"outside of its hours ({terms.hours_as_written}), open again at {opening:%Y-%m-%d %H:%M}"
            walk.wait(name, opening, f"{THERE} it is {why}")
            return True
        return not await self._has_turn(name, wanted, walk)

    async def _is_a_part(self, found: Found, wanted: Wanted, known: Known | None, walk: _Walk) -> bool:
        """Of what an archive has that was passed over because it can't give it now."""
        here = {listed.sop_instance_uid for listed in found.instances}
        for name, study in walk.passed:
            there = await self._describe(name, study, wanted, known, walk)
            lacking = sum(listed.sop_instance_uid not in here for listed in there.instances)
            if lacking:
                walk.say(found.archive, f"lacks {lacking} of the {len(there.instances)} instances in {name}")
                return True
        return False

    async def _has_turn(self, name: str, wanted: Wanted, walk: _Walk, *, take: bool = False) -> bool:
        rate = self._terms[name].rate
        if rate is None:
            return True
        who = hashlib.sha256(repr(wanted.asked).encode()).hexdigest()[:16]

        def change(kept: Mapping[str, Any], now: float) -> tuple[Mapping[str, Any], float | None]:
            pulls = Pulls(rate, kept)
            ask = pulls.take if take else pulls.ask
            told = ask(who, now, urgent=wanted.urgent, beside=wanted.beside)
            return pulls.keep(), None if told is None else told - now

        wait = await self._ledger.change_pulls(name, change)
        if wait is None:
            return True
        at = (datetime.now() + timedelta(seconds=wait)).astimezone()
        why = f"{rate.count} studies were fetched within {rate.seconds:g} s already, next try {at:%H:%M:%S}"
        walk.wait(name, at, f"{THERE} {why}")
        return False

    async def _describe(
        self,
        name: str,
        study: StudyMatch,
        wanted: Wanted,
        known: Known | None,
        walk: _Walk,
    ) -> Found:
        keywords = attributes_for(wanted.choose, self._makers)
        listed = await self._list(name, study, keywords, wanted.slide)
        made = made_by(listed, self._makers)
        if made:
            listed = await self._list(name, study, (*keywords, "ImageType"), wanted.slide)
            made = made_by(listed, self._makers)
        delivered = await known([each.sop_instance_uid for each in listed]) if known is not None else ()
        choice = choose_instances(listed, wanted.choose, wanted.modalities, delivered=delivered, made=made)
        return Found(
            name,
            study,
            choice.instances,
            tuple(listed),
            choice.left_out,
            (*walk.remarks, *(f"{name}: {remark}" for remark in choice.remarks)),
            tuple(walk.unasked),
        )

    async def _list(
        self, name: str, study: StudyMatch, keywords: Collection[str], slide: Slide | None
    ) -> list[InstanceRef]:
        archive, uid, count = self.archive(name, slide), study.study_instance_uid, study.instance_count
        listed = await self._call(name, slide, lambda: archive.list_instances(uid, count, keywords))
        if len(listed) != count and (count is not None or not listed):
            promised = "the study" if count is None else f"{count} instances"
            raise Retryable(
                f"{name} promises {promised} and lists {len(listed)}",
                "The study may still be arriving; if this goes on, have the archive check it.",
            )
        return listed


def _questions(wanted: Wanted) -> Iterator[Mapping[str, str]]:
    """By study UID first; what no archive knows by it, then by accession number and patient id."""
    asked = wanted.asked
    if asked.study_instance_uid:
        yield {"study_instance_uid": asked.study_instance_uid}
    if asked.accession_number or not asked.study_instance_uid:
        yield {"accession_number": asked.accession_number, "patient_id": asked.patient_id}


def _the_one(name: str, studies: Sequence[StudyMatch], asked: Identity) -> StudyMatch:
    """Of several, those that agree in all that is known: a number may be another hospital's as well."""
    known = replace(asked, study_instance_uid="")  # none has it, or it wouldn't be looked for by its number
    agreeing = [study for study in studies if not differences(known, study.identity)]
    by_uid = {study.study_instance_uid: study for study in agreeing or studies}
    if len(by_uid) > 1:
        raise NeedsHuman(
            f"{len(by_uid)} studies in {name} match the accession number",
            "Choose the right one on the job's page, or by gateway jobs resume ID --study UID.",
            detail={"choices": sorted(by_uid)},
            said={uid: study.told for uid, study in sorted(by_uid.items()) if study.told},
        )
    found = next(iter(by_uid.values()))
    for study in studies:
        if study.study_instance_uid == found.study_instance_uid:
            require_agreement(found.identity, study.identity, f"{name} has the study twice", _TWICE)
    return found
