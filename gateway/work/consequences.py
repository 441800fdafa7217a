"""What follows from what was found, by an application's rules (`when`). They only add: more destinations,
more haste, more who hear of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.contract import Finding
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.jobs.store.alerts import FOUND, Cause
from gateway.settings.consequences import When
from gateway.settings.sections import Application


@dataclass(frozen=True, slots=True)
class Consequences:
    """`met`: the rules that held."""

    met: tuple[When, ...] = ()

    @property
    def deliver(self) -> list[str]:
        return list(dict.fromkeys(name for rule in self.met for name in rule.deliver))

    @property
    def priority(self) -> int | None:
        """That its job gets at least."""
        return max((rule.priority for rule in self.met if rule.priority is not None), default=None)

    @property
    def notify(self) -> dict[str, When]:
        """Each department once, by the first rule that names it."""
        first: dict[str, When] = {}
        for rule in self.met:
            if rule.notify is not None:
                first.setdefault(rule.notify, rule)
        return first

    @property
    def told(self) -> list[str]:
        """For the history, in the words of the configuration: a vendor's own may name somebody."""
        return [f"{rule}: {rule.what_follows}" for rule in self.met]


def decide(rules: Iterable[When], findings: Sequence[Finding]) -> Consequences:
    return Consequences(tuple(rule for rule in rules if any(_is_met(rule, each) for each in findings)))


def _is_met(rule: When, finding: Finding) -> bool:
    if finding.label.strip().casefold() != rule.finding.strip().casefold():
        return False
    return rule.score is None or rule.score.holds(finding.score)


def destinations_of(application: Application, job: Job, followed: Consequences) -> list[str]:
    named = dict.fromkeys([*application.deliver, *followed.deliver])
    return [name for name in named if name != "sectra" or job.slide_id is not None]


async def notify(store: Store, job: Job, application: Application, followed: Consequences) -> None:
    """Once for a job and department, however often its results are collected."""
    for department, rule in followed.notify.items():
        await store.tell_once(
            Cause(
                f"{FOUND}{job.id}.{department}",
                f"{application.display_name} has found: {rule}; job {job.id}",
                f"Look at the result: gateway jobs show {job.id}, or the job's page in the console.",
                (department,),
            )
        )
