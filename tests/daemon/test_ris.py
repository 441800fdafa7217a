"""Results to the RIS, from the click to the acknowledgement: by a real listener of the `hl7` package."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import hl7
import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.simulate import milvue_results
from tests.peers.dicom_samples import encode
from tests.peers.gateway import PATIENCE, Hospital, Patient, hospital
from tests.peers.line import line_to
from tests.peers.ris import Ris, ris


@asynccontextmanager
async def with_ris(tmp_path: Path, database_url: str, **more: object) -> AsyncIterator[tuple[Hospital, Ris]]:
    async with ris() as listener, hospital(tmp_path, database_url) as house:
        place = {"kind": "hl7", "host": "127.0.0.1", "port": listener.port, **more}
        house.configuration["destinations"]["ris"] = place
        house.application["deliver"] = ["sectra", "vna", "ris"]
        yield house, listener


def identity(house: Hospital, patient: Patient) -> tuple[str, str]:
    header = house.archive.instances[patient.instances[0]].header
    return str(header.PatientID), str(header.PatientName)


def told(message: hl7.Message) -> str:
    """All but the moment at which it was sent."""
    return str(message).replace(str(message.segment("MSH")[7]), "", 1)


async def test_the_vendors_message_reaches_the_ris_addressed_by_the_hospital(
    tmp_path: Path, database_url: str
) -> None:
    async with with_ris(tmp_path, database_url, sending_facility="Rad|1", receiving_facility="H") as (
        house,
        r,
    ):
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "done")
        [message] = r.received
        header = message.segment("MSH")
        assert [str(header[place]) for place in (3, 4, 5, 6)] == ["GATEWAY", "Rad\\F\\1", "", "H"]
        assert str(message.segment("PID")[3]) == identity(house, patient)[0]
        assert str(message.segment("OBR")[3]) == patient.accession
        assert "Fracture" in str(message.segment("OBX")[5])
        [delivery] = [told for told in job["deliveries"] if told["destination"] == "ris"]
        assert (delivery["state"], delivery["reference"]) == ("done", str(header[10]))
        assert job["proof"]["stored"] == 2


async def test_a_refused_message_holds_the_job_and_a_lost_answer_sends_the_same_message(
    tmp_path: Path, database_url: str
) -> None:
    async with with_ris(tmp_path, database_url) as (house, r):
        r.answers = ["", "", "AE"]
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "held")
        assert "answered AE" in job["error"]["message"]
        assert {told["destination"]: told["state"] for told in job["deliveries"]} == {
            "sectra": "done",
            "vna": "done",
            "ris": "held",
        }
        assert await house.api("POST", f"jobs/{job['id']}/resume")
        await house.settled(job["id"], "done")
        assert len(r.received) == 4
        assert len({told(message) for message in r.received}) == 1
        assert len(house.stored_of(patient.study)) == 2, "and nothing was stored twice"


async def test_of_several_messages_none_that_was_accepted_is_sent_again(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands give one; the second one's answers get lost, and then it is refused for a while."""
    measured = milvue_results.describe_expert

    def measure_and_report(headers: list[Dataset], version: str) -> dict[str, Any]:
        ready = milvue_results.describe_urgences(headers, version, "en")["hl7"]
        return {**measured(headers, version), "hl7": ready.replace("Fracture, score 0.91", "axis 12.5")}

    monkeypatch.setattr(milvue_results, "describe_expert", measure_and_report)
    async with with_ris(tmp_path, database_url, send_again=["AE"]) as (house, r):
        house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "smartxpert"]
        r.answers = ["AA", "", "AE", "AR"]
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "held")
        assert "answered AR" in job["error"]["message"]
        assert await house.api("POST", f"jobs/{job['id']}/resume")
        job = await house.settled(job["id"], "done")
        words = ["Fracture" if "Fracture" in str(message) else "axis" for message in r.received]
        assert words == ["Fracture", "axis", "axis", "axis", "axis"]
        [reference] = [each["reference"] for each in job["deliveries"] if each["destination"] == "ris"]
        assert reference.split(", ") == [str(r.received[place].segment("MSH")[10]) for place in (0, -1)]


TEMPLATE = """\
{{ application }} sagt: {{ summary }} für {{ subject.patient_name }}
{% for finding in findings %}
* {{ finding.label }}
{% endfor %}
"""


async def test_a_departments_template_and_a_pdf(tmp_path: Path, database_url: str) -> None:
    async with with_ris(tmp_path, database_url, format="pdf", template="{{ summary }}") as (house, r):
        house.configuration["departments"]["emergency"]["hl7"] = {"template": TEMPLATE}
        patient = house.admit()
        await house.start()
        job = await house.ask(study_instance_uid=patient.study)
        await house.settled(job["id"], "done")
        [message] = r.received
        text, document, study = message.segments("OBX")
        lines = str(text[5]).split("\\X0D\\")
        name = identity(house, patient)[1].replace("^", "\\S\\")
        assert lines[0].startswith("Milvue trauma sagt: Milvue smarturgences: abnormal")
        assert lines[0].endswith(f" für {name}")
        assert lines[1:] == ["* Fracture"]
        assert base64.b64decode(str(document[5]).split("^")[4]).startswith(b"%PDF-")
        assert str(study[5]) == patient.study
        assert str(message.segment("PID")[5]) == identity(house, patient)[1]


async def test_a_patient_corrected_meanwhile_stops_all_deliveries(tmp_path: Path, database_url: str) -> None:
    """The study is another patient's by the time that the result comes: nobody is told."""
    async with with_ris(tmp_path, database_url) as (house, r):
        patient = house.admit()
        gate = house.gates.close("GET", "/v3/smarturgences")
        await house.start()
        job = await house.ask(study_instance_uid=patient.study)
        await gate.wait()
        for uid in patient.instances:
            image = dcmread_of(house, uid)
            image.PatientID = "SOMEBODY-ELSE"
            house.archive.add(encode(image))
        house.secrets.add("SOMEBODY-ELSE")
        gate.opened.set()
        job = await house.settled(job["id"], "held")
        assert r.received == []
        assert house.stored_of(patient.study) == []
        assert {told["destination"]: told["state"] for told in job["deliveries"]} == {
            "vna": "held",
            "ris": "held",
        }
        assert "another patient" in job["error"]["message"]


async def test_an_archive_that_dies_before_the_delivery_is_waited_for_and_not_the_ris(
    tmp_path: Path, database_url: str
) -> None:
    """Whose result it is, is read there once more before the RIS is told."""
    async with with_ris(tmp_path, database_url) as (house, r):
        vna = house.configuration["archives"]["vna"]
        async with line_to(vna["url"]) as line:
            vna["url"] = line.url
            house.application["deliver"] = ["ris"]
            patient = house.admit()
            gate = house.gates.close("GET", "/v3/smarturgences")
            await house.start()
            asked = await house.ask(study_instance_uid=patient.study)
            await gate.wait()
            await line.cut()
            gate.opened.set()
            async with asyncio.timeout(PATIENCE):
                while not (job := await house.settled(asked["id"], "delivering"))["waits"]:
                    await asyncio.sleep(0.05)
            assert "the archive vna is not reachable since" in job["waits"]["why"]
            _, listed = await house.api("GET", "peers", role="viewer")
            states = {(each["kind"], each["name"]): each["state"] for each in listed["peers"]}
            assert states["archives", "vna"] == "away"
            assert states["destinations", "ris"] != "away"
            await line.connect()
            await house.settled(asked["id"], "done")
            assert len(r.received) == 1


def dcmread_of(house: Hospital, uid: str) -> Dataset:
    return dcmread(BytesIO(house.archive.instances[uid].data))


@pytest.mark.parametrize("where", ["destinations", "departments"])
def test_a_bad_template_stops_the_start_with_a_sentence(tmp_path: Path, where: str) -> None:
    bad = {"template": "{{ sumary }}"}
    configuration = {
        "data_dir": str(tmp_path / "data"),
        "destinations": {
            "ris": {"kind": "hl7", "host": "ris", "port": 2575, **(bad if where == "destinations" else {})}
        },
        "departments": {"emergency": {"hl7": bad} if where == "departments" else {}},
    }
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(configuration))
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--offline", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    place = "destinations.ris.template" if where == "destinations" else "departments.emergency.hl7.template"
    assert told.returncode == 1
    assert f"{place}: the template can't be filled in: 'sumary' is undefined" in told.stderr


async def test_check_says_whether_somebody_listens(tmp_path: Path, database_url: str) -> None:
    async with with_ris(tmp_path, database_url) as (house, _):
        house.configuration["destinations"]["nobody"] = {"kind": "hl7", "host": "127.0.0.1", "port": 1}
        config = tmp_path / "check.yaml"
        config.write_text(yaml.safe_dump(house.configuration))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "check", "--json", "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await asyncio.wait_for(process.communicate(), 60)
        peers = json.loads(told)["peers"]
        assert peers["destinations.ris"]["ok"] is True
        assert peers["destinations.nobody"]["ok"] is False
