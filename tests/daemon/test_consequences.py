"""A finding sends its result further, faster, and tells a department, from the click to the webhook."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import structlog
from typer.testing import CliRunner

from gateway.__main__ import app
from tests.peers.gateway import TRAUMA, Hospital, hospital
from tests.peers.hook import open_hook
from tests.peers.letters import letters
from tests.peers.ris import ris

MET = "fracture, score > 0.8: also to ris; at priority 9 at least; the contact of emergency is told"


async def explain(house: Hospital, study: str) -> str:
    config = str(house.folder / "gateway.yaml")
    asked = ["explain", "--application", TRAUMA, "--study", study, "--config", config]
    told = await asyncio.to_thread(CliRunner().invoke, app, asked)
    structlog.reset_defaults()
    return told.stdout


async def test_what_was_found_sends_the_result_further_and_tells_the_department(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        ris() as listener,
        open_hook() as hook,
        hospital(tmp_path, database_url) as house,
    ):
        with letters() as post:
            house.configuration["destinations"]["ris"] = {
                "kind": "hl7",
                "host": "127.0.0.1",
                "port": listener.port,
            }
            house.configuration["alerts"] = {
                "webhook": {"url": hook.url},
                "email": {
                    "host": "127.0.0.1",
                    "port": post.port,
                    "from": "gw@hospital.example",
                    "to": ["it@hospital.example"],
                },
            }
            house.configuration["departments"]["emergency"]["contact"] = "er@hospital.example"
            house.application["deliver"] = ["sectra"]
            house.application["when"] = [
                {
                    "finding": "fracture",
                    "score": ">0.8",
                    "deliver": ["ris"],
                    "priority": 9,
                    "notify": "emergency",
                },
                {"finding": "fracture", "score": ">0.99", "deliver": ["vna"]},
            ]
            patient = house.admit()
            await house.start()
            told = await explain(house, patient.study)
            assert f"  if found: {MET}\n" in told
            await house.fire(patient.slide)
            job = await house.job_on(patient.slide, "done")
            assert {each["destination"]: each["state"] for each in job["deliveries"]} == {
                "sectra": "done",
                "ris": "done",
            }
            assert job["priority"] == 9
            [done] = [event for event in job["events"] if event["what"] == "the vendor is done"]
            assert done["detail"]["by_rule"] == [MET]
            assert len(listener.received) == 1
            cause = f"found.{job['id']}.emergency"
            await house.until(lambda: hook.kinds(cause) == ["alert"], "the webhook hears of it")
            await house.until(lambda: post.about(cause) == ["alert"], "the contact hears of it")
            [letter] = [each for each in post.taken if cause in each.get_content()]
            assert "er@hospital.example" in letter["To"]
            header = house.archive.instances[patient.instances[0]].header
            told = json.dumps(hook.told) + str(letter)
            for word in (str(header.PatientID), str(header.PatientName), patient.accession, patient.study):
                assert word not in told
