"""gateway explain: what would happen to a study, and why. Nothing is sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gateway.archives.lookup import Found, NotYet, Wanted
from gateway.commands.opening import FAILED, WRONG_USE, complain, go, only_looking, read_settings
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.dicom.identity import Identity
from gateway.embedded.running import running_url
from gateway.jobs.store import DatabaseError
from gateway.run import build
from gateway.settings.sections import Application, Settings
from gateway.work.study_way import URGENT


def explain(config: Path | None, name: str, study: str | None, accession: str | None, as_json: bool) -> int:
    if bool(study) == bool(accession):
        complain("name the study by --study or by --accession")
        return WRONG_USE
    settings = read_settings(config)
    found = settings.application(name)
    if found is None:
        known = ", ".join(sorted(settings.applications))
        complain(f"there is no application {name}; known: {known or 'none'}")
        return FAILED
    department, application = found
    asked = Identity(study or "", accession_number=accession or "")
    return go(_explain(settings, department, name, application, asked, as_json))


async def _explain(
    settings: Settings, department: str, name: str, application: Application, asked: Identity, as_json: bool
) -> int:
    told: dict[str, Any] = {
        "application": name,
        "department": department,
        "adapter": application.adapter,
        "deliver": application.deliver,
        "priority": application.priority,
    }
    url = settings.database_url or running_url(settings.data_dir) or "postgresql://"
    async with build(only_looking(settings), url) as house:

        async def known(uids: Collection[str]) -> Collection[str]:
            try:
                return await house.store.results_among(uids)
            except DatabaseError:
                told["unknown"] = "the database can't be asked for results that were delivered before"
                return ()

        try:
            if house.vendors.works_on_slide(application.adapter):
                raise Permanent(
                    f"{application.adapter} works on slides in Sectra, and reads them there itself",
                    "Ask for it on the slide, in Sectra.",
                )
            wanted = Wanted(
                asked,
                application.accept.modalities,
                application.choose,
                urgent=application.priority >= URGENT,
                when_unreachable=application.when_unreachable,
            )
            found = await house.archives.lookup.find(application.archives, wanted, known)
            found.check()
            told |= _describe(found)
        except NotYet as wait:
            told |= {
                "would": "wait",
                "until": wait.at.isoformat(),
                "why": wait.why,
                "advice": "A job of priority 9 doesn't wait for an archive's hours."
                if wait.trouble is None
                else wait.trouble.advice,
                "archives": list(wait.remarks),
            }
        except Failure as failure:
            told |= _describe_failure(failure)
    print(json.dumps(told) if as_json else _write(told))
    return 0 if told["would"] == "send" else FAILED


def _describe(found: Found) -> dict[str, Any]:
    return {
        "would": "send",
        "archive": found.archive,
        "study": found.study.study_instance_uid,
        "passed_over": list(found.remarks),
        "instances": len(found.instances),
        "left_out": sum(found.left_out.values()),
        "left_out_because": dict(found.left_out),
        "modalities": dict(Counter(instance.modality or "unknown" for instance in found.instances)),
    }


def _describe_failure(failure: Failure) -> dict[str, Any]:
    would = "fail"
    if isinstance(failure, Retryable):
        would = "try again later"
    elif isinstance(failure, NeedsHuman):
        would = "be held for a person"
    return {"would": would, "why": failure.message, "advice": failure.advice, **failure.detail}


def _write(told: dict[str, Any]) -> str:
    lines = [f"{told['application']} ({told['department']}), priority {told['priority']}"]
    if told["would"] != "send":
        until = f" until {told['until']}" if "until" in told else ""
        lines.append(f"the job would {told['would']}{until}: {told['why']}")
        lines += [f"  {remark}" for remark in told.get("archives", [])]
        return "\n".join([*lines, f"  what to do: {told['advice']}"])
    lines += [f"  passed over: {remark}" for remark in told["passed_over"]]
    kinds = ", ".join(f"{count} {modality}" for modality, count in told["modalities"].items())
    lines.append(f"  study {told['study']}")
    lines.append(f"  found in {told['archive']}: {told['instances']} instances ({kinds})")
    if told["left_out"]:
        because = ", ".join(f"{count} {reason}" for reason, count in told["left_out_because"].items())
        lines.append(f"  left out: {told['left_out']} ({because})")
    if "unknown" in told:
        lines.append(f"  not considered: {told['unknown']}")
    lines.append(
        f"  would be sent to {told['adapter']}; results to {', '.join(told['deliver']) or 'nowhere'}"
    )
    return "\n".join(lines)
