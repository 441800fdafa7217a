"""A vendor asked for several analyses of one study: what one found arrives, whatever the others do."""

from __future__ import annotations

from pathlib import Path

from gateway.simulate.milvue import Behaviour, Outcome
from tests.peers.gateway import TOKENS, hospital


async def test_one_fails_and_the_others_finding_is_delivered(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["commands"] = ["smartxpert", "smarturgences", "trauma"]
        house.milvue.behaviours["*"] = Behaviour(
            delay=0.1, outcomes={"smartxpert": "error", "trauma": "forbidden"}
        )
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "done")
        [result] = house.results_on(patient.slide)
        assert "Milvue smarturgences: abnormal (Fracture)" in result["displayResult"]
        assert "Milvue smartxpert: failed" in result["displayResult"]
        assert "Milvue trauma: failed" in result["displayResult"]
        [finished] = [event for event in job["events"] if "failed" in event["detail"]]
        assert len(finished["detail"]["failed"]) == 2
        told = {each["name"]: each["sentence"] for each in job["analyses"]}
        assert list(told) == ["smartxpert", "smarturgences", "trauma"]
        assert told["smartxpert"].startswith("failed: Milvue couldn't analyse the study")
        assert told["smarturgences"] == "the result is there"
        assert told["trauma"] == "failed: Milvue's contract doesn't include trauma"
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        async with house.http.get(f"{house.gateway.url}/jobs/{job['id']}", headers=headers) as page:
            text = await page.text()
        assert all(f"<strong>{name}</strong>: " in text for name in told)
        assert "Fracture" not in text, "what was found is for operators"
        assert house.stored_of(patient.study)


async def test_one_that_never_ends_holds_back_nothing_of_the_others(
    tmp_path: Path, database_url: str
) -> None:
    """Once its time is over: what is there is delivered, and what isn't is named."""
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "smartxpert"]
        house.application["result_within"] = "3s"
        house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes={"smartxpert": "running"})
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "done")
        [result] = house.results_on(patient.slide)
        assert "Milvue smarturgences: abnormal (Fracture)" in result["displayResult"]
        assert "smartxpert: failed (Milvue hadn't finished it in the time" in result["displayResult"]
        told = {each["name"]: each["sentence"] for each in job["analyses"]}
        assert told["smarturgences"] == "the result is there"
        assert told["smartxpert"] == "failed: Milvue hadn't finished it in the time that it has"
        assert house.stored_of(patient.study)


async def test_where_none_ends_the_job_is_held_and_goes_on_once_one_has(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "smartxpert"]
        house.application["result_within"] = "2s"
        both: dict[str, Outcome] = {"smarturgences": "running", "smartxpert": "running"}
        house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes=both)
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "held")
        assert "no result within 2 s" in job["error"]["message"]
        house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes={"smartxpert": "running"})
        await house.job_on(patient.slide, "done")
        [result] = house.results_on(patient.slide)
        assert "Milvue smarturgences: abnormal (Fracture)" in result["displayResult"]


async def test_unknown_is_not_told_as_nothing_found(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.application["retry"]["attempts"] = 2
        await house.start()
        for outcome in ("unknown", "bare"):
            house.milvue.behaviours["*"] = Behaviour(delay=0, outcome=outcome)
            patient = house.admit()
            await house.fire(patient.slide)
            job = await house.job_on(patient.slide, "held")
            assert "findings of smarturgences" in job["error"]["message"]
            await house.until(
                lambda slide=patient.slide: "on hold" in house.results_on(slide)[0]["displayResult"],
                "the slide says so",
            )


async def test_where_none_has_a_result_it_is_told_of_each(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "trauma"]
        outcomes: dict[str, Outcome] = {"smarturgences": "error", "trauma": "formatting-error"}
        house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes=outcomes)
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "failed")
        told = {each["name"]: each["sentence"] for each in job["analyses"]}
        assert "couldn't analyse" in told["smarturgences"] and "can't render" in told["trauma"]
