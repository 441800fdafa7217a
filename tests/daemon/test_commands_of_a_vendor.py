"""A vendor asked for several analyses of one study: what one found arrives, whatever the others do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from gateway.simulate.milvue import Behaviour, Outcome
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import head
from tests.peers.gateway import TOKENS, TRAUMA, Hospital, hospital


def never_end(house: Hospital, *endless: str, within: str = "2s") -> None:
    """Those, of two commands."""
    house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "smartxpert"]
    house.application["result_within"] = within
    outcomes: dict[str, Outcome] = dict.fromkeys(endless, "running")
    house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes=outcomes)


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
        never_end(house, "smartxpert", within="3s")
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
        never_end(house, "smarturgences", "smartxpert")
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


async def is_asked_for(house: Hospital, job_id: str) -> bool:
    """While it is just being asked nothing is waited for."""
    _, job = await house.api("GET", f"jobs/{job_id}")
    why = (job["waits"] or {}).get("why")
    return bool(why == "the vendor is still asked for what it hadn't finished in time")


async def test_what_comes_when_the_job_is_done_is_delivered_too_each_in_its_own_time(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["commands"] = ["smarturgences", "smartxpert", "trauma"]
        house.application["result_within"] = "2s"
        house.application["deidentify"] = "research"
        house.configuration["profiles"] = {"research": {"base": "basic"}}
        slow: dict[str, Outcome] = {"smartxpert": "running", "trauma": "running"}
        house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes=slow)
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        first = await house.job_on(patient.slide, "done")
        await house.until(lambda: is_asked_for(house, first["id"]), "the vendor is asked on")
        assert len(house.stored_of(patient.study)) == 2
        for number, still in enumerate(({"trauma": "running"}, {}), 2):
            house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes=cast("dict[str, Outcome]", still))

            async def begun(count: int = number) -> bool:
                return len(await house.jobs_on(patient.slide)) == count

            await house.until(begun, "it is taken up")
            job = await house.job_on(patient.slide, "done")
            [result] = house.results_on(patient.slide)
            told = result["displayResult"]
            assert "Milvue smarturgences: abnormal (Fracture)" in told
            assert ("Milvue smartxpert: failed" in told, "Milvue trauma: failed" in told) == (
                False,
                bool(still),
            )
            assert len(house.stored_of(patient.study)) == 2 * number, "each object once"
            assert still or job["next_at"] is None
            assert job["proof"]["promised"] == job["proof"]["acknowledged"] == len(patient.instances)
            assert job["proof"]["received"] == job["proof"]["stored"] == 2 * number
        assert set(house.milvue.arrivals.values()) == {1}, "sent once"
        _, told = await house.api("GET", f"jobs/{first['id']}")
        assert told["next_at"] is None
        assert any(event["what"] == "the vendor has finished more of it" for event in told["events"])


@pytest.mark.parametrize("meanwhile", ["it fails", "somebody asks for it again"])
async def test_nothing_is_delivered_later_that_nobody_would_miss(
    tmp_path: Path, database_url: str, meanwhile: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        never_end(house, "smartxpert")
        patient = house.admit()
        await house.start()
        job = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        if meanwhile == "it fails":
            house.milvue.behaviours["*"] = Behaviour(delay=0, outcomes={"smartxpert": "error"})
        else:
            house.milvue.behaviours["*"] = Behaviour(delay=0)
            again = await house.ask(study_instance_uid=patient.study)
            await house.settled(again["id"], "done")

        async def looks_no_more() -> bool:
            _, now = await house.api("GET", f"jobs/{job['id']}")
            return now["waits"] is None and now["next_at"] is None

        await house.until(looks_no_more, "it is looked for no more")
        _, listed = await house.api("GET", "jobs", params={"study": patient.study})
        assert len(listed["jobs"]) == (1 if meanwhile == "it fails" else 2)


async def test_what_is_awaited_of_a_vendor_that_is_configured_no_longer_is_no_slides_trouble(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        never_end(house, "smartxpert")
        patient = house.admit()
        await house.start()
        job = await house.settled((await house.ask(study_instance_uid=patient.study))["id"], "done")
        await house.gateway.stop()
        known = house.configuration["adapters"].pop("milvue")
        house.configuration["adapters"]["other"] = {**known, "url": "http://127.0.0.1:1"}
        house.application["adapter"] = "other"
        await house.start()

        async def was_looked_at() -> bool:
            _, now = await house.api("GET", f"jobs/{job['id']}")
            return bool(now["next_at"] > job["next_at"])

        await house.until(was_looked_at, "it is looked for")
        _, now = await house.api("GET", f"jobs/{job['id']}")
        assert now["state"] == "done" and now["waits"]["why"] == job["waits"]["why"]
        assert not [event for event in now["events"] if "slide couldn't be told" in event["what"]]


async def test_what_comes_late_of_a_study_that_was_sent_to_us_finds_its_images_still_here(
    tmp_path: Path, database_url: str
) -> None:
    """They are in no archive, and go once nothing more is looked for. Nor is the result counted twice."""
    async with hospital(tmp_path, database_url) as house:
        never_end(house, "smartxpert")
        house.application["settle"] = "300ms"
        paths = write_study(tmp_path / "study", 2)
        first = head(paths[0])
        study = str(first.StudyInstanceUID)
        house.secrets |= {str(first.PatientID), str(first.AccessionNumber)}
        await house.start()
        begin = b"--between\r\nContent-Type: application/dicom\r\n\r\n"
        async with house.http.post(
            f"{house.gateway.url}/dicomweb/{TRAUMA}/studies",
            data=b"".join(begin + path.read_bytes() + b"\r\n" for path in paths) + b"--between--",
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=between',
                "Authorization": f"Bearer {TOKENS['operator']}",
            },
        ) as answer:
            assert answer.status == 200

        async def jobs() -> list[dict[str, Any]]:
            _, listed = await house.api("GET", "jobs", params={"study": study})
            return [await house.settled(job["id"], "done") for job in listed["jobs"]]

        async def counted(number: int) -> bool:
            return len(await jobs()) == number

        await house.until(lambda: counted(1), "it is analysed")
        incoming = house.folder / "data" / "incoming" / TRAUMA
        assert len(list(incoming.glob("*/*.dcm"))) == 2
        house.milvue.behaviours["*"] = Behaviour(delay=0)
        await house.until(lambda: counted(2), "what came late is delivered")
        took = ["took" in event["detail"] for job in await jobs() for event in job["events"]]
        assert sum(took) == 1
        assert len(house.stored_of(study)) == 4
        await house.until(lambda: not list(incoming.glob("*/*.dcm")), "its images are gone")
