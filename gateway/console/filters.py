"""Which jobs a page's address means: by the names of the API, and some that only the console has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from gateway.console import wording
from gateway.intake.problems import Problem
from gateway.jobs.records import Job
from gateway.jobs.states import ALIVE, State
from gateway.jobs.store.reading import Filter
from gateway.nearest import did_you_mean
from gateway.settings.sections import Settings

_COLUMNS = {"study": "study_instance_uid", "worker": "lease_holder"}
_NAMES = (
    *("state", "doing", "department", "application", "adapter", "waits_for", "failing", "cause"),
    *("worker", "study", "accession_number", "slide_id", "since", "id"),
)
_LIVING = ("doing", "waits_for", "failing", "cause", "worker")
_IDENTIFYING = ("study", "accession_number", "slide_id")
_LONGEST = 200
_LONGEST_NAME = 40
_MOST = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """`values`: as the address has them."""

    values: Mapping[str, Sequence[str]]
    filter: Filter

    @property
    def query(self) -> str:
        return urlencode([(name, value) for name, values in self.values.items() for value in values])

    @property
    def is_of_the_living(self) -> bool:
        states = self.values.get("state", ())
        return any(name in self.values for name in _LIVING) or bool(
            states and set(states) <= {str(each) for each in ALIVE}
        )

    def one(self, name: str) -> str:
        return next(iter(self.values.get(name, ())), "")

    def without(self, name: str, value: str) -> str:
        left = [
            (each, given)
            for each, values in self.values.items()
            for given in values
            if (each, given) != (name, value)
        ]
        return urlencode(left)

    def with_or_without(self, name: str, value: str) -> str:
        """The address in which this value is asked for too or, if it is already, no longer."""
        if value in self.values.get(name, ()):
            query = self.without(name, value)
        else:
            query = "&".join(filter(None, (self.query, urlencode({name: value}))))
        return f"/jobs?{query}" if query else "/jobs"

    def only_one_job(self) -> UUID | None:
        alone = len(self.values) == 1 and len(self.filter.id) == 1
        return next(iter(self.filter.id)) if alone else None

    def chips(self, settings: Settings) -> list[tuple[str, str]]:
        """Each thing asked for in words, and the address without it."""
        told = [
            (_say(settings, name, value), self.without(name, value))
            for name, values in self.values.items()
            for value in values
            if name != "id"
        ]
        chosen = len(self.filter.id)
        return [*told, *([(wording.count(chosen, "chosen job"), "")] if chosen else [])]


def read_filter(given: Iterable[tuple[str, str]], beside: Collection[str] = ()) -> Asked:
    """`beside`: names that stand in the same address and filter nothing. What nobody knows is refused, as
    leaving it out would mean more jobs than were asked for."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        if name in beside:
            continue
        require_known(name, _NAMES)
        wanted = value.strip()
        if wanted and wanted not in values.setdefault(name, []):
            values[name].append(wanted[:_LONGEST])
    values = {name: values[name][:_MOST] for name in _NAMES if values.get(name)}
    typed: dict[str, Any] = {_COLUMNS.get(name, name): given for name, given in values.items()}
    try:
        if "state" in values:
            typed["state"] = [State(each) for each in values["state"]]
        if "id" in values:
            typed["id"] = [UUID(each) for each in values["id"]]
        if "worker" in values:
            typed["lease_holder"] = [_read_number(each) for each in values["worker"]]
        if "since" in values:
            typed["since"] = datetime.fromisoformat(values["since"][0]).astimezone(UTC)
        if not set(values.get("doing", ())) <= {"waiting", "working"}:
            raise ValueError
    except (ValueError, OverflowError):
        raise Problem(422, "this address asks for jobs in a way that nobody here understands") from None
    return Asked(values, Filter(**typed))


def _read_number(given: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", given):
        raise ValueError
    return int(given)


def require_known(name: str, known: Collection[str]) -> None:
    if name not in known:
        listed = f"{', '.join(known) or 'none'}{did_you_mean(name, known)}"
        raise Problem(422, f"nobody here knows “{name[:_LONGEST_NAME]}”; known: {listed}")


def read_query(query: str) -> Asked:
    try:
        return read_filter(parse_qsl(query, max_num_fields=300))
    except ValueError:
        raise Problem(422, "this form is none of ours: load the page again") from None


def write_place(job: Job) -> str:
    return f"{job.created_at.astimezone(UTC).isoformat()}_{job.id}"


def read_place(text: str) -> tuple[datetime, UUID] | None:
    if not text:
        return None
    at, _, job_id = text.partition("_")
    try:
        return datetime.fromisoformat(at.replace(" ", "+")).astimezone(UTC), UUID(job_id)
    except (ValueError, OverflowError):
        raise Problem(422, "this page of the list isn't one that it leads to: begin it again") from None


def _say(settings: Settings, name: str, value: str) -> str:
    match name:
        case "state":
            return value
        case "doing":
            return "at work" if value == "working" else "waiting"
        case "application" if value in settings.applications:
            return settings.applications[value].display_name
        case "waits_for":
            return f"waiting for {wording.name_peer(settings, value)}"
        case "failing":
            return f"not delivered to {value}"
        case "cause":
            return "of one cause"
        case "worker":
            return "at work in one process"
        case "since":
            at = datetime.fromisoformat(value) if re.match(r"\d{4}-", value) else None
            return f"since {wording.clock(at)}"
        case _:
            return f"{name.replace('_', ' ')} {value}"
