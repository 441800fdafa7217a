"""gateway jobs."""

from __future__ import annotations

import json
import os
import pwd
import re
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.consent import ask_about_all
from gateway.commands.opening import FAILED, WRONG_USE, complain, with_store, with_store_to_look
from gateway.intake.views import JobView, view
from gateway.jobs.records import Delivery, Job
from gateway.jobs.states import ALIVE, State
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.batches import Act, tell_left
from gateway.jobs.store.reading import Filter
from gateway.nearest import no_such
from gateway.settings.load import config_path, load, process_environment
from gateway.settings.tree import Misconfigured

Filters = Mapping[str, Any]  # by the names of Filter
_WIDE = 120
_NAME = 18
_NOT_IN_LISTS = {"analyses", "events", "deliveries", "said"}
_LEAST_DIGITS = 4


def list_jobs(config: Path | None, filters: Filters, limit: int, as_json: bool) -> int:
    async def work(store: Store) -> int:
        found = [view(job) for job in await store.find(filter_of(filters), limit=limit)]
        if as_json:
            print(json.dumps([job.model_dump(mode="json", exclude=_NOT_IN_LISTS) for job in found]))
            return 0
        Console(width=None if os.isatty(1) else 200).print(tabulate(found))
        if not found:
            complain("no jobs match" if any(filters.values()) else "there are no jobs yet")
            complain(*_misspelt(config, filters))
        return 0

    return with_store_to_look(config, "to list jobs", work)


def tabulate(found: Sequence[JobView]) -> Table:
    """As wide as the terminal; where there is none, or a wide one, with whole ids and dates."""
    whole = not os.isatty(1) or Console().width >= _WIDE
    table = Table(box=None, pad_edge=False)
    for title in ("created", "job", "application", "state", "try", "why"):
        table.add_column(title, no_wrap=title != "why")
    table.columns[2].max_width = None if whole else _NAME
    for job in found:
        wrong = job.waits.why if job.waits else job.error.message if job.error else ""
        created, shown = here(job.created_at), str(job.id)
        if not whole:
            created, shown = created[5:16], shown[:8]
        table.add_row(created, shown, Text(job.application), job.state, str(job.attempt), Text(wrong))
    return table


def show(config: Path | None, job_id: str, as_json: bool) -> int:
    async def work(store: Store) -> int:
        known = await find_job(store, job_id)
        if known is None:
            return FAILED
        await _print(store, known, as_json, closer=True)
        return 0

    return with_store_to_look(config, "to show a job", work)


def act(
    config: Path | None,
    what: Act,
    job_ids: Sequence[str],
    filters: Filters,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """On these jobs, or on all that the filters mean; `yes`: without asking. For one to resume, a study is
    the one chosen."""
    choice: list[str] = []
    if what == "resume" and len(job_ids) == 1:
        filters = dict(filters)
        choice = filters.pop("study_instance_uid") or []
    filtered = any(filters.values())
    if bool(job_ids) == (filtered or everything) or len(choice) > 1:
        complain("name jobs by their ids, or with --all by the filters of gateway jobs list")
        return WRONG_USE
    if is_too_short(job_ids):
        return WRONG_USE
    if job_ids:
        return with_store(config, f"to {what} jobs", _act_on_each(what, job_ids, choice, as_json))
    misspelt = _misspelt(config, filters)
    work = _act_on_all(what, filter_of(filters), misspelt, everything, yes, as_json)
    return with_store(config, f"to {what} jobs", work)


def _act_on_each(
    what: Act, job_ids: Sequence[str], choice: Sequence[str], as_json: bool
) -> Callable[[Store], Awaitable[int]]:
    who = who_asks()

    async def work(store: Store) -> int:
        found = [await find_job(store, job_id) for job_id in job_ids]
        refusals = found.count(None)
        for job_id in dict.fromkeys(filter(None, found)):
            try:
                if what == "retry":
                    await _tell_anew(store, job_id)
                    job = await store.retry(job_id, who)
                elif what == "cancel":
                    job = await store.cancel(job_id, who)
                else:
                    job = await store.resume(job_id, who, study_instance_uid=next(iter(choice), None))
            except Refused as refused:
                refusals += 1
                complain(str(refused) if len(found) == 1 else f"{job_id}: {refused}")
                continue
            if len(found) == 1:
                await _print(store, job.id, as_json)
            else:
                _print_line(job, as_json)
        return FAILED if refusals else 0

    return work


def _act_on_all(
    what: Act, wanted: Filter, misspelt: Sequence[str], everything: bool, yes: bool, as_json: bool
) -> Callable[[Store], Awaitable[int]]:
    async def work(store: Store) -> int:
        count = await store.count_for(what, wanted)
        complain(f"{count} job{'' if count == 1 else 's'} to {what}", *(() if count else misspelt))
        if left := await store.count_left(what, wanted):
            complain(f"others match and are left as they are: {tell_left(left)}")
        if not everything:
            complain("nothing was done: say --all to do it")
            return WRONG_USE
        if not yes and (no := ask_about_all(what, filtered=wanted != Filter())) is not None:
            return no
        try:
            acted = await store.act_on_all(what, wanted, who_asks(), count)
        except Refused as refused:
            complain(str(refused))
            return FAILED
        for job in acted.done:
            _print_line(job, as_json)
        complain(*(f"{job_id}: {why}" for job_id, why in acted.passed_over.items()))
        complain(acted.tell(what))
        return FAILED if acted.passed_over else 0

    return work


async def _tell_anew(store: Store, job_id: UUID) -> None:
    """Before it is, since a vendor may want to be paid for each."""
    job = await store.glance(job_id)
    if job is not None and job.state == State.DONE:
        complain(f"job {job_id} is done: a new analysis of the same is begun, as a new job")


def _misspelt(config: Path | None, filters: Filters) -> list[str]:
    """Names that nothing is configured by: a reason why no jobs match. There may be jobs of those that once
    were."""
    environment = process_environment()
    try:
        settings = load(config or config_path(environment), environment)
    except Misconfigured:
        return []
    return [
        no_such(kind, name, known)
        for kind in ("department", "application", "adapter")
        for known in (getattr(settings, f"{kind}s"),)
        for name in filters[kind] or ()
        if name not in known
    ]


def filter_of(filters: Filters) -> Filter:
    named = {name: value for name, value in filters.items() if value}
    if "accession_number" in named:
        named["accession_number"] = [number.strip(" ") for number in named["accession_number"]]
    return Filter(**named)


def is_too_short(job_ids: Sequence[str]) -> bool:
    """Whether one of them is too little of an id to change something by: a slip would meet another job."""
    short = [each for each in job_ids if len(each.replace("-", "")) < _LEAST_DIGITS]
    complain(
        *(f"{each!r} is too little of a job's id: give {_LEAST_DIGITS} digits or more" for each in short)
    )
    return bool(short)


async def find_job(store: Store, job_id: str) -> UUID | None:
    """By its id, or by as much of its beginning as no other job has."""
    digits = job_id.replace("-", "")
    found = await store.find_by_prefix(digits) if re.fullmatch("[0-9a-fA-F]{1,32}", digits) else []
    if len(found) == 1:
        return found[0]
    if found:
        complain(f"several jobs begin with {job_id} ({found[0]}, {found[1]}): give more of the id")
    else:
        complain(f"there is no job {job_id}; gateway jobs list shows them")
    return None


async def _print(store: Store, job_id: UUID, as_json: bool, *, closer: bool = False) -> None:
    """`closer`: with what peers said, which is for operators; whoever looks at it is noted."""
    job = await store.glance(job_id)
    assert job is not None
    said = await store.said_of(job_id, who_asks()) if closer else None
    deliveries = await store.deliveries_of(job_id)
    shown = view(job, await store.events_of(job_id), deliveries, said)
    if as_json:
        print(shown.model_dump_json(indent=2, exclude=None if said else {"said"}))
        return
    paused = {pause.peer: pause for pause in await store.pauses()}
    print(_describe(shown, [paused[each].command for each in _awaited(job, deliveries) if each in paused]))


def _print_line(job: Job, as_json: bool) -> None:
    print(view(job).model_dump_json(exclude=_NOT_IN_LISTS) if as_json else f"{job.id}  {job.state}")


def _awaited(job: Job, deliveries: Sequence[Delivery]) -> list[str]:
    """The peers without which it doesn't go on."""
    if job.state not in ALIVE:
        return []
    return list(dict.fromkeys(filter(None, (job.waits_for, *(each.waits_for for each in deliveries)))))


def _describe(job: JobView, commands: Sequence[str] = ()) -> str:
    """`commands`: those that let it go on."""
    proof = job.proof
    lines = [
        f"job {job.id}",
        f"  {job.application} ({job.department}), adapter {job.adapter}, priority {job.priority}",
        *_subjects(job),
        f"  {job.state}, try {job.attempt}" + _next(job),
        f"  instances promised {_count(proof.promised)}, sent {_count(proof.sent)},"
        f" acknowledged {_count(proof.acknowledged)};"
        f" results received {_count(proof.received)}, stored {_count(proof.stored)}",
    ]
    if job.waits:
        until = "" if job.waits.until is None else f" until {here(job.waits.until)}"
        lines.append(f"  waits{until}: {job.waits.why}")
    lines += [f"  what lets it go on: {command}" for command in commands]
    if job.error:
        lines += [f"  {job.error.kind}: {job.error.message}", f"  what to do: {job.error.advice}"]
    lines += _choices(job)
    lines += [f"  {each.name}: {each.sentence}" for each in job.analyses or []]
    for delivery in job.deliveries or []:
        there = f", there {delivery.reference}" if delivery.reference else ""
        again = f", next try {here(delivery.next_at)}" if delivery.next_at and delivery.last_error else ""
        wrong = f": {delivery.last_error}" if delivery.last_error else ""
        tried = f"{delivery.state}, attempts {delivery.attempts}"
        lines.append(f"  to {delivery.destination}: {tried}{there}{again}{wrong}")
    for event in job.events or []:
        detail = f"  {json.dumps(event.detail)}" if event.detail else ""
        lines.append(f"  {here(event.at)}  {event.state:<11} {event.what}{detail}")
    for said in job.said or []:
        lines.append(
            f"  {here(said.at)}  said with “{said.what}”: {json.dumps(said.words, ensure_ascii=False)}"
        )
    return "\n".join(_fold(line) for line in lines)


def _next(job: JobView) -> str:
    if job.next_at is None:
        return ""
    return f", next {'try' if job.error else 'step'} {here(job.next_at)}"


def _choices(job: JobView) -> list[str]:
    """The studies of which one is meant, and how that is said."""
    held = [event for event in job.events or [] if event.what == State.HELD.value]
    offered = held[-1].detail.get("choices") if held and job.state == State.HELD else None
    told_of = [each.words for each in job.said or [] if each.what == State.HELD.value][-1:]
    lines = []
    for study in offered or []:
        told = next((f"  ({words[study]})" for words in told_of if study in words), "")
        lines += [f"  perhaps {study}{told}", f"    gateway jobs resume {job.id} --study {study}"]
    return lines


def _fold(line: str) -> str:
    """Into the terminal, below where it begins."""
    if not os.isatty(1) or len(line) < (width := Console().width):
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True, tabsize=1
    )


def _subjects(job: JobView) -> list[str]:
    known = {
        "study": job.study.study_instance_uid,
        "accession number": job.study.accession_number,
        "found in": job.study.archive,
        "slide": job.slide_id,
        "the vendor's reference": job.vendor_reference,
    }
    return [f"  {name} {value}" for name, value in known.items() if value]


def here(moment: datetime) -> str:
    return f"{moment.astimezone():%F %T}"


def _count(known: int | None) -> str:
    return "–" if known is None else str(known)


def who_asks() -> str:
    """Containers run under numbers that no name belongs to."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"command line ({user})"
