"""A study that goes to its vendor without names, and what the vendor found comes back to its patient."""

from __future__ import annotations

import asyncio
import copy
import json
from io import BytesIO
from typing import Any

import psycopg
import structlog
from cryptography.fernet import Fernet
from pydicom import dcmread
from typer.testing import CliRunner

from gateway.__main__ import app
from tests.peers.gateway import TRAUMA, Hospital, Patient, hospital

OTHER = "milvue-elsewhere"


def disguise(house: Hospital) -> None:
    """In two departments, which have the same vendor: one sends by STOW-RS, the other to signed urls."""
    house.application["deidentify"] = "research"
    house.configuration["profiles"] = {"research": {"options": ["retain-longitudinal-modified-dates"]}}
    adapters = house.configuration["adapters"]
    adapters["signed"] = {**adapters["milvue"], "signed_url": True}
    other = copy.deepcopy(house.application) | {"adapter": "signed"}
    house.configuration["departments"]["ward"] = {"applications": {OTHER: other}}


def telling(house: Hospital, patient: Patient) -> set[str]:
    """What would tell the vendor whose study it is, and stands in what he got or was asked."""
    names = {str(house.archive.instances[uid].header.get("PatientID")) for uid in patient.instances}
    secrets = {"Zyxwvut", patient.accession, patient.study, patient.slide, *patient.instances, *names}
    got = [str(header) for study in house.milvue.studies.values() for header in study.headers.values()]
    got += [study.first.decode("latin-1") for study in house.milvue.studies.values()]
    got += [repr(call) for call in house.milvue.front.calls]
    assert got
    return {secret for secret in secrets if any(secret in text for text in got)}


def results(house: Hospital, patient: Patient) -> list[Any]:
    return [dcmread(BytesIO(house.archive.instances[uid].data)) for uid in house.stored_of(patient.study)]


async def shows_what_would_leave(house: Hospital, patient: Patient) -> None:
    asked = ["explain", "--application", TRAUMA, "--study", patient.study, "--show-deidentified", "--json"]
    asked += ["--config", str(house.folder / "gateway.yaml")]
    told = json.loads((await asyncio.to_thread(CliRunner().invoke, app, asked)).stdout)
    structlog.reset_defaults()
    by_keyword = {each["keyword"]: each for each in told["deidentified"]}
    header = house.archive.instances[patient.instances[0]].header
    assert by_keyword["PatientID"]["before"] == header.PatientID != by_keyword["PatientID"]["after"]
    assert by_keyword["PatientID"]["why"] == "Z/D: replaced by a pseudonym"
    assert by_keyword["Modality"]["before"] == by_keyword["Modality"]["after"]
    assert told["aliases"].startswith("examples")
    assert not house.milvue.studies, "nothing is sent"


async def test_a_study_that_went_out_without_names_comes_back_to_its_patient(tmp_path, database_url):
    async with hospital(tmp_path, database_url) as house:
        disguise(house)
        keys = house.configuration["secret_keys"]
        await house.start()
        patient = house.admit()
        await shows_what_would_leave(house, patient)
        header = house.archive.instances[patient.instances[0]].header
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "done")
        assert job["proof"]["sent"] == job["proof"]["acknowledged"] == len(patient.instances)
        assert telling(house, patient) == set()
        [study] = house.milvue.studies
        assert study.startswith("2.25.")
        found = results(house, patient)
        assert len(found) == job["proof"]["stored"] > 0
        for each in found:
            assert (each.PatientID, each.PatientName) == (header.PatientID, header.PatientName)
            assert study not in str(each)

        await house.fire(patient.slide)  # a second sending, of whom the vendor knows
        await house.job_on(patient.slide, "done")
        assert house.milvue.posts == {study: 2}

        await house.gateway.stop()
        house.configuration["secret_keys"] = [Fernet.generate_key().decode(), *keys]
        await house.start()
        await house.fire(patient.slide)
        await house.job_on(patient.slide, "done")
        assert house.milvue.posts == {study: 3}, "whatever encrypts the keys, the patient stays who he was"

        other = house.admit()
        house.milvue.behaviours["*"].spoil = "other-study"
        await house.fire(other.slide)
        held = await house.job_on(other.slide, "held")
        assert "result for another study" in held["error"]["message"]
        house.milvue.behaviours["*"].spoil = None

        await house.fire(patient.slide, applicationId=OTHER)
        jobs = await house.jobs_on(patient.slide)
        await house.settled(next(job["id"] for job in jobs if job["application"] == OTHER), "done")
        assert len(house.milvue.studies) == 3, "the patient is somebody else in another department"
        assert telling(house, patient) | telling(house, other) == set()
        with psycopg.connect(database_url) as connection:
            lies = str(connection.execute("SELECT * FROM pseudonyms").fetchall())
        assert "2.25." in lies and patient.study not in lies


async def test_a_kill_in_the_middle_changes_nobodys_alias(tmp_path, database_url):
    async with hospital(tmp_path, database_url) as house:
        disguise(house)
        first = await house.start()
        patient = house.admit()
        gate = house.gates.close("POST", "/v3/studies$", after=True)
        await house.fire(patient.slide)
        await gate.wait()
        await first.kill()
        gate.opened.set()
        await house.start()
        await house.job_on(patient.slide, "done")
        assert set(house.milvue.arrivals.values()) == {1}, "nothing is sent again"
        assert len(house.milvue.studies) == 1
        assert telling(house, patient) == set()
        assert results(house, patient)
