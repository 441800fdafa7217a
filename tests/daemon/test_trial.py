"""A candidate before it is trusted: studies with a known truth, exact figures, nothing delivered."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from gateway.simulate.milvue import MilvueState
from tests.daemon.test_shadow import rows, with_second_vendor
from tests.peers.dicom_samples import encode, make_study
from tests.peers.gateway import TRAUMA, Hospital

F, E = "fracture", "effusion"
# What is true of a study, what the candidate finds in it, and whose image it is.
STUDIES: list[tuple[list[str], list[str], dict[str, str]]] = [
    ([F], [F], {"PatientSex": "F", "PatientAge": "047Y"}),
    ([F], [F], {"PatientSex": "F", "PatientAge": "012Y"}),
    ([F, E], [F], {"PatientSex": "M", "PatientAge": "047Y"}),
    ([F], [], {"PatientSex": "M", "PatientAge": "047Y"}),
    ([], [], {"PatientSex": "F", "PatientAge": "047Y"}),
    ([], [], {"PatientSex": "M", "PatientAge": "081Y"}),
    ([], [E], {"PatientSex": "M", "PatientAge": "047Y"}),
    ([], [F], {"PatientSex": "M", "PatientAge": "047Y"}),
]


def asked(house: Hospital, studies: Path, *more: str) -> list[str]:
    config = str(house.folder / "gateway.yaml")
    named = ["--application", TRAUMA, "--adapter", "second", "--studies", str(studies)]
    return ["trial", *named, "--config", config, *more]


async def trial(house: Hospital, studies: Path, *more: str) -> Result:
    done = await asyncio.to_thread(CliRunner().invoke, app, asked(house, studies, *more))
    structlog.reset_defaults()
    return done


def admit(house: Hospital, **of: str) -> tuple[str, str]:
    [image] = make_study(1)
    for keyword, value in of.items():
        setattr(image, keyword, value)
    house.archive.add(encode(image))
    house.secrets |= {str(image.PatientID), str(image.AccessionNumber)}
    return str(image.StudyInstanceUID), str(image.AccessionNumber)


async def admit_all(house: Hospital, second: MilvueState, folder: Path) -> Path:
    """By turns named by their UID and by their accession number."""
    lines = ["study_instance_uid,accession_number,fracture,effusion"]
    for number, (truth, finds, of) in enumerate(STUDIES):
        study, accession = admit(house, **of)
        wanted = {"study": study, "delay": 0.1, "finds": finds}
        async with house.http.put(f"{second.url}/control/behaviour", json=wanted) as answer:
            assert answer.status == 200
        named = f"{study}," if number % 2 else f",{accession}"
        lines.append(f"{named},{'yes' if F in truth else 'no'},{'yes' if E in truth else 'no'}")
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def four(told: dict[str, Any]) -> list[int]:
    names = ("true_positive", "false_negative", "false_positive", "true_negative")
    return [told[name] for name in names]


async def test_exact_figures_and_nothing_delivered(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        house.application["shadow"] = []
        await house.start()
        path = await admit_all(house, second, tmp_path)
        done = await trial(house, path, "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (told["studies"], told["with_result"], told["without_result"]) == (8, 8, {})
        of = {each["finding"]: each for each in told["findings"]}
        assert four(of[F]["overall"]) == [3, 1, 1, 3]
        assert four(of[E]["overall"]) == [0, 1, 1, 6]
        sensitivity = of[F]["overall"]["sensitivity"]
        assert sensitivity["value"] == 0.75
        assert (round(sensitivity["low"], 4), round(sensitivity["high"], 4)) == (0.3006, 0.9544)
        by = of[F]["by"]
        assert {sex: four(each) for sex, each in by["sex"].items()} == {"F": [2, 0, 0, 1], "M": [1, 1, 1, 2]}
        assert {age: each["studies"] for age, each in by["age"].items()} == {"0-17": 1, "40-64": 6, "80+": 1}
        assert (
            sum(each["studies"] for each in by["modality"].values()) == 8 and "unknown" not in by["modality"]
        )
        assert sum(each["studies"] for each in by["device"].values()) == 8

        assert not house.archive.stored and not house.milvue.studies
        _, listed = await house.api("GET", "jobs")
        assert listed["jobs"] == []
        assert len(second.arrivals) == 8
        written = await trial(house, path)
        assert written.exit_code == 0
        assert "0.750 (0.301 to 0.954)" in written.stdout
        assert "Wilson" in written.stdout
        assert all(len(line) <= 110 for line in written.stdout.splitlines())
        assert set(second.arrivals.values()) == {1}, "what ran isn't run again"


async def test_a_trial_that_was_killed_goes_on_where_it_was(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        house.application["shadow"] = []
        gateway = await house.start()
        path = await admit_all(house, second, tmp_path)
        arguments = asked(house, path, "--json")
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await house.until(lambda: second.arrivals, "a study is with the candidate")
        command.kill()
        await command.wait()
        await gateway.kill()
        await house.start()
        done = await trial(house, path, "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert four(told["findings"][0]["overall"]) == [3, 1, 1, 3]
        count = "SELECT count(*) FROM jobs WHERE application = 'trial/milvue-trauma/second'"
        assert await asyncio.to_thread(rows, database_url, count) == [(8,)]
        assert set(second.arrivals.values()) == {1}
        again = await trial(house, path, "--name", "anew", "--json")
        assert again.exit_code == 0, again.output
        assert set(second.arrivals.values()) == {2}, "under another name it is another trial"


async def test_what_fails_is_told_and_counted_apart(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        house.application["shadow"] = []
        second.behaviours["*"].outcome = "error"
        await house.start()
        patient = house.admit(1, slide=False)
        path = tmp_path / "list.csv"
        path.write_text(f"study,truth\n{patient.study},yes\n")
        done = await trial(house, path, "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (told["with_result"], told["without_result"]) == (0, {"failed": 1})
        assert told["findings"][0]["overall"]["sensitivity"] is None
        assert await asyncio.to_thread(rows, database_url, "SELECT cause FROM alerts") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("study,fracture\n1.2,perhaps\n", "line 2: fracture is neither yes nor no"),
        ("fracture\nyes\n", "no column names the study"),
    ],
)
async def test_a_bad_list_starts_nothing(tmp_path, database_url, text, sentence):
    async with with_second_vendor(tmp_path, database_url) as (house, _):
        await house.start()
        path = tmp_path / "list.csv"
        path.write_text(text)
        done = await trial(house, path)
        assert done.exit_code == 1
        assert sentence in done.output and "nothing was started" in done.output
        assert await asyncio.to_thread(rows, database_url, "SELECT id FROM jobs") == []
