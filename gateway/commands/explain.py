"""gateway explain: what would happen to a study or a slide, and why. Nothing is sent."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from gateway.archives.lookup import Found
from gateway.building.house import House, build
from gateway.commands.jobs import here
from gateway.commands.opening import FAILED, WRONG_USE, complain, go, only_looking, read_settings
from gateway.contract import Failure, NeedsHuman, Permanent
from gateway.dicom.identity import Identity
from gateway.embedded.running import running_url
from gateway.jobs.store import DatabaseError
from gateway.nearest import no_such
from gateway.privacy.header import Change
from gateway.privacy.profile import Rules
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import NotThere
from gateway.settings.sections import Application, Settings
from gateway.work.foresight import Foreseen, Foresight, Subject
from gateway.work.preview import preview

_SHOWN = 70


def explain(
    config: Path | None,
    name: str,
    study: str | None,
    accession: str | None,
    slide: str | None,
    as_json: bool,
    show_deidentified: bool = False,
) -> int:
    if sum(map(bool, (study, accession, slide))) != 1:
        complain("name the study by --study or by --accession, or a slide by --slide")
        return WRONG_USE
    settings = read_settings(config)
    found = settings.application(name)
    if found is None:
        complain(no_such("application", name, settings.applications))
        return FAILED
    department, application = found
    if show_deidentified and not application.deidentify:
        complain(f"{name} has no profile: its vendor gets studies as they are (deidentify: false)")
        return FAILED
    asked = Identity(study or "", accession_number=(accession or "").strip(" "))
    return go(_explain(settings, department, name, application, asked, slide, as_json, show_deidentified))


async def _explain(
    settings: Settings,
    department: str,
    name: str,
    application: Application,
    asked: Identity,
    slide: str | None,
    as_json: bool,
    show_deidentified: bool,
) -> int:
    told: dict[str, Any] = {
        "application": name,
        "department": department,
        "adapter": application.adapter,
        "deliver": application.deliver,
        "when": [{"found": str(rule), "then": rule.what_follows} for rule in application.when],
        "priority": application.priority,
    }
    url = settings.database_url or running_url(settings.data_dir) or "postgresql://"
    async with build(only_looking(settings), url) as house:
        house.lasting.circuits.only_look()
        house.archives.lookup.only_look()

        async def known(uids: Collection[str]) -> Collection[str]:
            try:
                return await house.lasting.store.results_among(uids)
            except DatabaseError:
                told["unknown"] = "the database can't be asked for results that were delivered before"
                return ()

        subject = Subject(asked) if slide is None else await _find_slide(house, name, slide)
        foresight = Foresight(house.vendors, house.archives.lookup, house.archives.of_slides, known)
        foreseen = await foresight.foresee(application, subject, application.priority)
        if show_deidentified and foreseen.found is not None:
            told |= await _show_deidentified(house, department, application, foreseen.found)
    told |= _describe(foreseen)
    print(json.dumps(told) if as_json else _write(told))
    return 0 if foreseen.would in ("send", "call") else FAILED


async def _show_deidentified(
    house: House, department: str, application: Application, found: Found
) -> dict[str, Any]:
    """Of the study's first image."""
    key = await house.lasting.store.known_department_key(department)
    told: dict[str, Any] = {"aliases": "as they are" if key else "examples: none was issued here yet"}
    rules = Rules(house.settings.profiles[str(application.deidentify)])
    archive = house.archives.lookup.archive(found.archive)
    study, first = found.study.study_instance_uid, found.instances[0]
    try:
        changes = await preview(archive, study, first, rules, key or secrets.token_bytes(32))
    except Failure as failure:
        return {"not_deidentified": failure.message}
    told["deidentified"] = [
        {"tag": tag, "keyword": keyword, "before": each.before, "after": each.after, "why": each.why}
        for each in changes
        for tag, keyword in [_named(each)]
    ]
    return told


def _named(change: Change) -> tuple[str, str]:
    from pydicom.datadict import keyword_for_tag

    tags = ".".join(f"{tag >> 16:04x},{tag & 0xFFFF:04x}" for tag in change.path)
    return tags, keyword_for_tag(change.path[-1])


async def _find_slide(house: House, application: str, slide: str) -> Subject:
    """On the server that knows it: our own user asks, since no invocation brought a token."""
    clients = house.servers.own_clients(application)
    for client in clients:
        with suppress(NotThere):
            await client.slide_info(slide, extended=False)
            return Subject(Identity(), slide, partial(_the_same, client))
    if not clients:
        raise NeedsHuman(
            "a slide can't be asked for: no Sectra server has a user of ours",
            "Set username and password of sectra.servers, or name the study instead.",
        )
    raise Permanent("no Sectra server knows this slide", "Compare its id; gateway jobs list shows some.")


def _the_same(client: SectraClient) -> SectraClient:
    return client


def _describe(foreseen: Foreseen) -> dict[str, Any]:
    told: dict[str, Any] = {"would": foreseen.would}
    if foreseen.would == "call":
        return told
    if foreseen.would != "send":
        if foreseen.until is not None:
            told |= {"until": foreseen.until.isoformat(), "archives": list(foreseen.remarks)}
        told |= {"why": foreseen.why, "advice": foreseen.advice}
        if foreseen.failure is not None and foreseen.until is None:
            told |= {**foreseen.failure.detail, **foreseen.failure.said}
        return told
    told |= {"archive": foreseen.archive, "passed_over": list(foreseen.remarks)}
    found = foreseen.found
    if found is not None:
        told |= {
            "study": found.study.study_instance_uid,
            "instances": len(found.instances),
            "left_out": sum(found.left_out.values()),
            "left_out_because": dict(found.left_out),
            "modalities": dict(Counter(instance.modality or "unknown" for instance in found.instances)),
        }
    return told


def _write(told: dict[str, Any]) -> str:
    lines = [f"{told['application']} ({told['department']}), priority {told['priority']}"]
    rules = [f"  if found: {rule['found']}: {rule['then']}" for rule in told["when"]]
    results = f"results to {', '.join(told['deliver']) or 'nowhere'}"
    if told["would"] == "call":
        return "\n".join(
            [*lines, f"  {told['adapter']} would be called, and reads the slide itself; {results}", *rules]
        )
    if told["would"] != "send":
        until = f" until {here(datetime.fromisoformat(told['until']))}" if "until" in told else ""
        lines.append(f"the job would {told['would']}{until}: {told['why']}")
        lines += [f"  {remark}" for remark in told.get("archives", [])]
        return "\n".join([*lines, f"  what to do: {told['advice']}", *rules])
    lines += [f"  passed over: {remark}" for remark in told["passed_over"]]
    if "study" in told:
        kinds = ", ".join(f"{count} {modality}" for modality, count in told["modalities"].items())
        lines.append(f"  study {told['study']}")
        lines.append(f"  found in {told['archive']}: {told['instances']} instances ({kinds})")
        if told["left_out"]:
            because = ", ".join(f"{count} {reason}" for reason, count in told["left_out_because"].items())
            lines.append(f"  left out: {told['left_out']} ({because})")
    if "unknown" in told:
        lines.append(f"  not considered: {told['unknown']}")
    lines.append(f"  would be sent to {told['adapter']}; {results}")
    if "not_deidentified" in told:
        lines.append(f"  but not without names: {told['not_deidentified']}")
    if "deidentified" in told:
        lines.append(f"  of its first image the vendor would get (aliases: {told['aliases']}):")
    for each in told.get("deidentified", ()):
        before, after = (_shorten(each[when]) for when in ("before", "after"))
        lines.append(f"    {each['tag']} {each['keyword']}: {before} → {after} ({each['why']})")
    return "\n".join([*lines, *rules])


def _shorten(value: str | None) -> str:
    if value is None:
        return "–"
    return value if value.isprintable() and len(value) <= _SHOWN else f"{len(value)} characters"
