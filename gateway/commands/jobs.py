"""gateway jobs."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from gateway.commands.opening import FAILED, WRONG_USE, complain, with_store
from gateway.intake.views import JobView, view
from gateway.jobs.chain import verify as verify_chains
from gateway.jobs.records import Job
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.reading import Filter
from gateway.jobs.store.requests import Act

Filters = Mapping[str, Any]  # by the names of Filter

_PAGE = 200


def list_jobs(config: Path | None, filters: Filters, limit: int, as_json: bool) -> int:
    async def work(store: Store) -> int:
        found = [view(job) for job in await store.find(_filter(filters), limit=limit)]
        if as_json:
            print(
                json.dumps([job.model_dump(mode="json", exclude={"events", "deliveries"}) for job in found])
            )
            return 0
        table = Table(box=None, pad_edge=False)
        for title in ("created", "job", "application", "state", "try", "what is wrong"):
            table.add_column(title, no_wrap=title != "what is wrong")
        for job in found:
            wrong = job.error.message if job.error else job.waits.why if job.waits else ""
            table.add_row(
                _here(job.created_at), str(job.id), job.application, job.state, str(job.attempt), wrong
            )
        Console(width=None if os.isatty(1) else 200).print(table)
        return 0

    return with_store(config, work)


def show(config: Path | None, job_id: str, as_json: bool) -> int:
    async def work(store: Store) -> int:
        known = await _find(store, job_id)
        if known is None:
            return FAILED
        await _print(store, known, as_json)
        return 0

    return with_store(config, work)


def act(
    config: Path | None, what: Act, job_ids: Sequence[str], filters: Filters, everything: bool, as_json: bool
) -> int:
    """On these jobs, or on all that the filters mean. For one to resume, a study is the one chosen."""
    choice: list[str] = []
    if what == "resume" and len(job_ids) == 1:
        filters = dict(filters)
        choice = filters.pop("study_instance_uid") or []
    filtered = any(filters.values())
    if bool(job_ids) == (filtered or everything) or len(choice) > 1:
        complain("name jobs by their ids, or with --all by the filters of gateway jobs list")
        return WRONG_USE
    if job_ids:
        return with_store(config, _act_on_each(what, job_ids, choice, as_json))
    return with_store(config, _act_on_all(what, _filter(filters), everything, as_json))


def _act_on_each(
    what: Act, job_ids: Sequence[str], choice: Sequence[str], as_json: bool
) -> Callable[[Store], Awaitable[int]]:
    who = f"command line ({_user()})"

    async def work(store: Store) -> int:
        found = [await _find(store, job_id) for job_id in job_ids]
        refusals = found.count(None)
        for job_id in dict.fromkeys(filter(None, found)):
            try:
                if what == "retry":
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
                await _print(store, job_id, as_json)
            else:
                _print_line(job, as_json)
        return FAILED if refusals else 0

    return work


def _act_on_all(
    what: Act, wanted: Filter, everything: bool, as_json: bool
) -> Callable[[Store], Awaitable[int]]:
    async def work(store: Store) -> int:
        count = await store.count_for(what, wanted)
        complain(f"{count} jobs to {what}")
        if not everything:
            complain("nothing was done: say --all to do it")
            return WRONG_USE
        try:
            done = await store.act_on_all(what, wanted, f"command line ({_user()})", count)
        except Refused as refused:
            complain(str(refused))
            return FAILED
        for job in done:
            _print_line(job, as_json)
        return 0

    return work


def export(config: Path | None, filters: Filters, verify: bool, as_json: bool) -> int:
    return with_store(config, _verify(as_json) if verify else _export(filters))


def _export(filters: Filters) -> Callable[[Store], Awaitable[int]]:
    async def work(store: Store) -> int:
        after = None
        while page := await store.find(_filter(filters), limit=_PAGE, after=after):
            for job in page:
                events = await store.events_of(job.id)
                shown = view(job, events, await store.deliveries_of(job.id)).model_dump(mode="json")
                for said, event in zip(shown["events"], events, strict=True):
                    said |= {"previous_hash": event.previous_hash, "hash": event.hash}
                    said |= {"salt": event.salt, "detail_digest": event.detail_digest}
                print(json.dumps(shown))
            after = (page[-1].created_at, page[-1].id)
        return 0

    return work


def _verify(as_json: bool) -> Callable[[Store], Awaitable[int]]:
    async def work(store: Store) -> int:
        inspection = await verify_chains(store)
        if as_json:
            print(json.dumps({"intact": not inspection.breaks, **asdict(inspection)}))
        elif inspection.breaks:
            complain(*inspection.breaks)
        else:
            print(f"intact: {inspection.jobs} jobs, {inspection.events} events, {inspection.seals} seals")
        return FAILED if inspection.breaks else 0

    return work


def _filter(filters: Filters) -> Filter:
    return Filter(**{name: value for name, value in filters.items() if value})


async def _find(store: Store, job_id: str) -> UUID | None:
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


async def _print(store: Store, job_id: UUID, as_json: bool) -> None:
    job = await store.get(job_id)
    assert job is not None
    shown = view(job, await store.events_of(job_id), await store.deliveries_of(job_id))
    print(shown.model_dump_json(indent=2) if as_json else _describe(shown))


def _print_line(job: Job, as_json: bool) -> None:
    print(
        view(job).model_dump_json(exclude={"events", "deliveries"}) if as_json else f"{job.id}  {job.state}"
    )


def _describe(job: JobView) -> str:
    proof = job.proof
    lines = [
        f"job {job.id}",
        f"  {job.application} ({job.department}), adapter {job.adapter}, priority {job.priority}",
        *_subjects(job),
        f"  {job.state}, try {job.attempt}" + (f", next at {_here(job.next_at)}" if job.next_at else ""),
        f"  instances promised {_count(proof.promised)}, sent {_count(proof.sent)},"
        f" acknowledged {_count(proof.acknowledged)};"
        f" results received {_count(proof.received)}, stored {_count(proof.stored)}",
    ]
    if job.waits:
        lines.append(f"  waits until {_here(job.waits.until)}: {job.waits.why}")
    if job.error:
        lines += [f"  {job.error.kind}: {job.error.message}", f"  what to do: {job.error.advice}"]
    for delivery in job.deliveries or []:
        there = f", there {delivery.reference}" if delivery.reference else ""
        again = f", next at {_here(delivery.next_at)}" if delivery.next_at and delivery.last_error else ""
        wrong = f": {delivery.last_error}" if delivery.last_error else ""
        tried = f"{delivery.state}, attempts {delivery.attempts}"
        lines.append(f"  to {delivery.destination}: {tried}{there}{again}{wrong}")
    for event in job.events or []:
        detail = f"  {json.dumps(event.detail)}" if event.detail else ""
        lines.append(f"  {_here(event.at)}  {event.state:<11} {event.what}{detail}")
    return "\n".join(lines)


def _subjects(job: JobView) -> list[str]:
    known = {
        "study": job.study.study_instance_uid,
        "accession number": job.study.accession_number,
        "found in": job.study.archive,
        "slide": job.slide_id,
        "the vendor's reference": job.vendor_reference,
    }
    return [f"  {name} {value}" for name, value in known.items() if value]


def _here(moment: datetime) -> str:
    return f"{moment.astimezone():%F %T}"


def _count(known: int | None) -> str:
    return "–" if known is None else str(known)


def _user() -> str:
    """Containers run under numbers that no name belongs to."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
