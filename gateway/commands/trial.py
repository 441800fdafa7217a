"""gateway trial: an acceptance run of a candidate against a truth, which delivers nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from gateway.commands.opening import FAILED, STOPPED, complain, go, read_settings, store_of
from gateway.jobs.records import LOWEST, TRIAL, Job, NewJob, Origin
from gateway.jobs.states import FINAL, State
from gateway.jobs.store import Store
from gateway.nearest import no_such
from gateway.sessions import Sessions
from gateway.settings.sections import Settings
from gateway.settings.shadows import application_named
from gateway.watch.accuracy import Accuracy, Examined, judge
from gateway.watch.proportions import Estimate
from gateway.work.shadowing import found_in, made_of
from gateway.work.strata import STRATA
from gateway.work.truth import Listed, Unclear, read_truth
from gateway.work.vendors import Vendors

_LOOK = 1.0
_STARTS_WITHIN = 20  # looks
_MOST_SENTENCES = 50
_INTERVAL = "Wilson"


@dataclass(frozen=True, slots=True)
class Trial:
    application: str
    adapter: str
    name: str
    findings: Sequence[str]
    studies: Sequence[Listed]

    @property
    def called(self) -> str:
        """As its jobs are."""
        return f"{TRIAL}{self.application}/{self.adapter}"


def run(config: Path | None, application: str, adapter: str, studies: Path, name: str, as_json: bool) -> int:
    settings = read_settings(config)
    if wrong := _why_not(settings, application, adapter):
        complain(wrong)
        return FAILED
    try:
        trial = Trial(application, adapter, name, *read_truth(studies.read_text(encoding="utf-8")))
    except OSError as trouble:
        complain(f"{studies}: can't be read ({trouble.strerror})")
        return FAILED
    except UnicodeDecodeError:
        complain(f"{studies}: isn't text in UTF-8")
        return FAILED
    except Unclear as wrong_lines:
        complain(*(f"{studies}: {sentence}" for sentence in wrong_lines.sentences[:_MOST_SENTENCES]))
        left = len(wrong_lines.sentences) - _MOST_SENTENCES
        complain(*([f"and {left} more"] if left > 0 else []), "nothing was started")
        return FAILED
    ended = go(_run(settings, trial, as_json))
    if ended == STOPPED:
        complain("what was begun goes on; the same command again waits for it, and begins only what is left")
    return ended


def _why_not(settings: Settings, application: str, adapter: str) -> str:
    if application not in settings.applications:
        return no_such("application", application, settings.applications)
    if adapter not in settings.adapters:
        return no_such("adapter", adapter, settings.adapters)
    tried = application_named(settings, f"{TRIAL}{application}/{adapter}")
    if tried is None or not tried.archives:
        return f"{application} has no archive that the studies could come from: name one under archives"
    return ""


async def _run(settings: Settings, trial: Trial, as_json: bool) -> int:
    tried = application_named(settings, trial.called)
    assert tried is not None
    async with Sessions(settings) as sessions:
        if why := Vendors(settings, sessions).shows_itself(trial.adapter, tried):
            complain(f"the candidate {why}")
            return FAILED
    async with store_of(settings, "to run a trial", acts=True) as store:
        if not await _is_worked_on(store):
            complain(
                "no gateway is at work on this database, and a trial's studies are sent by it: gateway run"
            )
            return FAILED
        begun = await _begin(store, settings, trial)
        await _wait(store, [job_id for _, job_id in begun])
        ended = [(listed, await store.get(job_id)) for listed, job_id in begun]
    examined = [
        Examined(listed.truth, found_in(job.result), _strata_of(listed, job))
        for listed, job in ended
        if job is not None and job.result is not None and _has_result(job)
    ]
    without = [job for _, job in ended if job is not None and not _has_result(job)]
    accuracies = judge(examined, trial.findings)
    if as_json:
        print(json.dumps(_plain(trial, accuracies, without)))
    else:
        _write(trial, accuracies, len(examined), without)
    return FAILED if any(job.state == State.HELD for job in without) else 0


async def _is_worked_on(store: Store) -> bool:
    """One that has just started says so in a moment."""
    for _ in range(_STARTS_WITHIN):
        if any("workers" in each.does and not each.silent for each in await store.replicas()):
            return True
        await asyncio.sleep(_LOOK)
    return False


async def _begin(store: Store, settings: Settings, trial: Trial) -> list[tuple[Listed, UUID]]:
    """Those that were begun before, whatever became of them, aren't begun again."""
    found = settings.application(trial.application)
    assert found is not None
    before = await store.asked_by(trial.called)
    begun = []
    for listed in trial.studies:
        key = listed.key(trial.name)
        if key not in before:
            new = NewJob(
                department=found[0],
                application=trial.called,
                adapter=trial.adapter,
                origin=Origin.REST,
                priority=LOWEST,
                study_instance_uid=listed.study_instance_uid or None,
                accession_number=listed.accession_number or None,
                patient_id=listed.patient_id or None,
                caller=trial.called,
                idempotency_key=key,
                beside=True,
            )
            before[key] = (await store.create(new))[0].id
        begun.append((listed, before[key]))
    return begun


async def _wait(store: Store, jobs: Sequence[UUID]) -> None:
    """Until each has ended, or needs a person."""
    with _progress() as tell:
        while True:
            states = await store.states_of(jobs)
            stopped = sum(states[state] for state in (*FINAL, State.HELD))
            tell(f"{stopped} of {len(jobs)} studies are through")
            if stopped >= len(jobs):
                return
            await asyncio.sleep(_LOOK)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """On a terminal in one line that goes away; elsewhere a line whenever something has changed."""
    if os.isatty(2):
        with Console(stderr=True).status("") as status:
            yield status.update
        return
    said = ""

    def tell(words: str) -> None:
        nonlocal said
        if words != said:
            complain(words)
        said = words

    yield tell


def _has_result(job: Job) -> bool:
    return job.result is not None and job.state == State.DONE


def _strata_of(listed: Listed, job: Job) -> Mapping[str, str]:
    return {**((job.context or {}).get(STRATA) or {}), **listed.of}


# -- how it is told -----------------------------------------------------------------------------------


def _write(trial: Trial, accuracies: Sequence[Accuracy], examined: int, without: Sequence[Job]) -> None:
    console = Console(width=None if os.isatty(1) else 110, highlight=False)
    console.print(
        f"{trial.adapter} in place of the vendor of {trial.application}: {len(trial.studies)} studies,"
        f" {examined} with a result; 95 % intervals by {_INTERVAL}",
        soft_wrap=True,
    )
    for finding in trial.findings:
        console.print(_tabulate([each for each in accuracies if each.finding == finding]))
    for job in without:
        reason = job.error_message or job.state.value
        console.print(f"  no result: {job.id} {job.state.value}: {reason}", soft_wrap=True)
    held = sum(job.state == State.HELD for job in without)
    if held:
        console.print(f"{held} need a person: gateway jobs resume|cancel ID …, then the same command again")


def _tabulate(accuracies: Sequence[Accuracy]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(accuracies[0].finding, overflow="fold")
    for title in ("studies", "found", "missed", "raised", "left", "sensitivity", "specificity"):
        table.add_column(title, justify="right", overflow="fold")
    for each in accuracies:
        four = (each.studies, each.found, each.missed, each.raised, each.left)
        named = f"  {each.group} {each.value}" if each.group else "overall"
        table.add_row(named, *map(str, four), _told(each.sensitivity), _told(each.specificity))
    return table


def _told(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _plain(trial: Trial, accuracies: Sequence[Accuracy], without: Sequence[Job]) -> dict[str, Any]:
    return {
        "application": trial.application,
        "adapter": trial.adapter,
        "studies": len(trial.studies),
        "with_result": len(trial.studies) - len(without),
        "without_result": dict(Counter(made_of(job, (), ()).outcome for job in without)),
        "jobs_without_result": [str(job.id) for job in without],
        "interval": f"{_INTERVAL}, 95 %",
        "findings": [
            {
                "finding": finding,
                "overall": next(_figures(each) for each in accuracies if _is_of(each, finding, "")),
                "by": {
                    group: {each.value: _figures(each) for each in accuracies if _is_of(each, finding, group)}
                    for group in ("modality", "device", "sex", "age")
                },
            }
            for finding in trial.findings
        ],
    }


def _is_of(accuracy: Accuracy, finding: str, group: str) -> bool:
    return (accuracy.finding, accuracy.group) == (finding, group)


def _figures(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "studies": accuracy.studies,
        "true_positive": accuracy.found,
        "false_negative": accuracy.missed,
        "false_positive": accuracy.raised,
        "true_negative": accuracy.left,
        "sensitivity": _estimate(accuracy.sensitivity),
        "specificity": _estimate(accuracy.specificity),
    }


def _estimate(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
