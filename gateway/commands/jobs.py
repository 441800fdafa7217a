"""gateway jobs."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from gateway.commands.opening import FAILED, complain, with_store
from gateway.intake.views import JobView, view
from gateway.jobs.chain import verify as verify_chains
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.reading import Filter

_PAGE = 200


def list_jobs(config: Path | None, filters: dict[str, Any], limit: int, as_json: bool) -> int:
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
            wrong = job.error.message if job.error else ""
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


def act(config: Path | None, what: str, job_id: str, as_json: bool, study: str | None = None) -> int:
    who = f"command line ({_user()})"

    async def work(store: Store) -> int:
        known = await _find(store, job_id)
        if known is None:
            return FAILED
        try:
            if what == "retry":
                await store.retry(known, who)
            elif what == "cancel":
                await store.cancel(known, who)
            else:
                await store.resume(known, who, **({"study_instance_uid": study} if study else {}))
        except Refused as refused:
            complain(str(refused))
            return FAILED
        await store.record_audit(who, what, known)
        await _print(store, known, as_json)
        return 0

    return with_store(config, work)


def export(config: Path | None, filters: dict[str, Any], verify: bool, as_json: bool) -> int:
    return with_store(config, _verify(as_json) if verify else _export(filters))


def _export(filters: dict[str, Any]) -> Callable[[Store], Awaitable[int]]:
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


def _filter(given: Mapping[str, Any]) -> Filter:
    named: dict[str, Any] = {name: (value,) for name, value in given.items() if value is not None}
    return Filter(**named)


async def _find(store: Store, job_id: str) -> UUID | None:
    try:
        found = await store.get(UUID(job_id))
    except ValueError:
        found = None
    if found is None:
        complain(f"there is no job {job_id}; gateway jobs list shows them")
        return None
    return found.id


async def _print(store: Store, job_id: UUID, as_json: bool) -> None:
    job = await store.get(job_id)
    assert job is not None
    shown = view(job, await store.events_of(job_id), await store.deliveries_of(job_id))
    print(shown.model_dump_json(indent=2) if as_json else _describe(shown))


def _describe(job: JobView) -> str:
    proof = job.proof
    lines = [
        f"job {job.id}",
        f"  {job.application} ({job.department}), adapter {job.adapter}, priority {job.priority}",
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
        again = f", next at {_here(delivery.next_at)}" if delivery.next_at and delivery.last_error else ""
        wrong = f": {delivery.last_error}" if delivery.last_error else ""
        lines.append(
            f"  to {delivery.destination}: {delivery.state}, attempts {delivery.attempts}{again}{wrong}"
        )
    for event in job.events or []:
        detail = f"  {json.dumps(event.detail)}" if event.detail else ""
        lines.append(f"  {_here(event.at)}  {event.state:<11} {event.what}{detail}")
    return "\n".join(lines)


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
