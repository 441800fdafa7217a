"""One gateway with something of everything, at which the console's tests look."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import astuple, dataclass, field
from datetime import date, timedelta
from typing import Any

import psycopg
import yaml

from gateway.commands.demo_past import ACCEPTED, make_up_weeks
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, Patient
from tests.peers.ports import free_port

TODAY = date.today()
CHEST, RESEARCH, HIP = "milvue-chest", "milvue-research", "milvue-hip"
TRIED = """WITH tried AS (
  INSERT INTO jobs (id, department, application, adapter, origin, state, beside)
  SELECT gen_random_uuid(), 'emergency', %s, 'candidate', 'rest', 'done', true FROM generate_series(1, 120)
  RETURNING id
), numbered AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tried)
INSERT INTO shadows (job_id, of, application, shadow, began_at, compared_at,
  own_outcome, own_seconds, own_found, outcome, seconds, found)
SELECT id, %s, %s, 'candidate', now() - n * interval '8 hours', now(),
  'result', 64, CASE n %% 3 WHEN 0 THEN ARRAY['fracture'] ELSE '{}' END,
  CASE n %% 40 WHEN 0 THEN 'failed' ELSE 'result' END, 31,
  CASE WHEN n %% 3 = 0 AND n %% 5 > 0 THEN ARRAY['fracture']
    WHEN n %% 20 = 1 THEN ARRAY['effusion'] ELSE '{}' END
FROM numbered RETURNING job_id"""


@dataclass
class Lively:
    """Something of everything; each job by what has become of it."""

    house: Hospital
    database: str
    jobs: dict[str, str] = field(default_factory=dict)
    patients: dict[str, Patient] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.house.gateway.url

    async def waits(self, name: str) -> bool:
        found = await self.rows("SELECT waits_for IS NOT NULL FROM jobs WHERE id = %s", self.jobs[name])
        return bool(found[0][0])

    async def rows(self, statement: str, *given: Any) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(self.database) as connection:
            return await (await connection.execute(statement, given)).fetchall()


def configure(house: Hospital) -> None:
    applications = house.configuration["departments"]["emergency"]["applications"]
    applications[CHEST] = {
        **house.application,
        "display_name": "Milvue chest",
        "deliver": ["sectra", "ris"],
    }
    research = {**house.application, "display_name": "Milvue research", "deliver": ["sectra"]}
    house.configuration["departments"]["radiology"] = {
        "contact": "radiology-it@hospital",
        "applications": {RESEARCH: research},
    }
    applications[HIP] = {**house.application, "display_name": "Milvue hip", "shadow": ["candidate"]}
    adapters = house.configuration["adapters"]
    adapters["candidate"] = dict(adapters["milvue"])
    applications[TRAUMA]["register"] = {
        "owner": "Dr Ito",
        "purpose": "fracture triage",
        "version": "3.2.0",
        "accepted": f"{TODAY - timedelta(days=ACCEPTED)}",
    }
    house.configuration["archives"]["vna"] |= {
        "owner": "archive-team@hospital",
        "runbook": "https://wiki.hospital/it?page=vna#away",
        "rate": "600/min",
    }
    house.configuration["sectra"]["servers"]["main"]["link"] = "https://pacs/view?n={accession_number}#one"
    adapters["milvue"]["canary"] = {"every": "1h"}
    house.configuration["destinations"]["spare"] = {"kind": "stow", "archive": "vna"}
    house.configuration["destinations"]["ris"] = {"kind": "hl7", "host": "127.0.0.1", "port": free_port()}


async def fill(lively: Lively) -> None:
    house = lively.house
    house.configuration["departments"]["radiology"]["contact"] = "the-desk@hospital"
    await reconfigure(lively, house.configuration)
    await reconfigure(lively, {**house.configuration, "adapters": {"milvue": {"kind": "nobody"}}})
    await house.api("POST", f"applications/{RESEARCH}/pause", {"why": "the study is being closed"})
    for name in ("done", "failed", "undelivered", "paused", "held"):
        patient = lively.patients[name] = house.admit(2 if name == "done" else 1)
        application = {"undelivered": CHEST, "paused": RESEARCH}.get(name, TRAUMA)
        wanted: dict[str, Any] = {"study_instance_uid": patient.study}
        if name == "paused":
            wanted["accession_number"] = patient.accession  # nobody has looked yet for what the archive knows
        if name == "failed":
            house.milvue.behaviours[patient.study] = Behaviour(outcome="formatting-error")
        if name == "held":
            house.admit(slide=False, twin_of=patient)
            wanted = {"accession_number": patient.accession}
        lively.jobs[name] = (await house.ask(application=application, **wanted))["id"]
    for name in ("done", "failed", "held"):
        await house.settled(lively.jobs[name], name)
    async with asyncio.timeout(PATIENCE):
        for name in ("undelivered", "paused"):
            while not await lively.waits(name):
                await asyncio.sleep(0.1)


async def remember(lively: Lively) -> None:
    """Weeks of two versions of a vendor, the newer of which finds more since some days; and of one that is
    tried beside another."""
    for each in make_up_weeks(TRAUMA, TODAY):
        await lively.rows("INSERT INTO tallies VALUES (%s, %s, %s, %s, %s) RETURNING day", *astuple(each))
    await lively.rows(TRIED, f"shadow/{HIP}/candidate", lively.jobs["done"], HIP)


async def reconfigure(lively: Lively, configuration: Any) -> None:
    """It is in force, or refused."""
    known = await lively.rows("SELECT count(*) FROM revisions")
    beside = lively.house.folder / "gateway.new"
    beside.write_text(yaml.safe_dump(configuration))
    beside.rename(lively.house.folder / "gateway.yaml")
    lively.house.gateway.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(PATIENCE):
        while await lively.rows("SELECT count(*) FROM revisions") == known:
            await asyncio.sleep(0.05)


def places(lively: Lively) -> dict[str, str]:
    jobs = lively.jobs
    return {
        "now": "/",
        "jobs": "/jobs",
        "jobs-filtered": f"/jobs?application={TRAUMA}&state=held&accession_number=none",
        "job-done": f"/jobs/{jobs['done']}",
        "job-held": f"/jobs/{jobs['held']}",
        "job-failed": f"/jobs/{jobs['failed']}",
        "job-undelivered": f"/jobs/{jobs['undelivered']}",
        "job-paused": f"/jobs/{jobs['paused']}",
        "job-raw": f"/jobs/{jobs['done']}/raw",
        "act": "/jobs/act?do=cancel&doing=waiting",
        "search": "/search",
        "peers": "/peers",
        "quality": "/quality",
        "audit": "/audit",
        "audit-filtered": f"/audit?who=operator&what=job+asked+for&job={jobs['done'][:8]}&since=2026-01-31",
        "configuration": "/configuration",
        "api": "/api/v1/",
    }
