"""The look-up in the running gateway: hours that are waited for at no cost, and results that come back as
nobody's input; with a vendor that speaks DICOMweb."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.simulate import archive as simulated
from gateway.simulate.archive import ArchiveState
from gateway.simulate.milvue import Behaviour
from gateway.simulate.serve import serve
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.gateway import ENDED, TRAUMA, Hospital, hospital
from tests.peers.ports import free_port

CLOSED = "trauma-by-night"


async def command(house: Hospital, *arguments: str, config: str = "gateway.yaml") -> dict[str, Any]:
    told = await asyncio.to_thread(
        CliRunner().invoke, app, [*arguments, "--json", "--config", str(house.folder / config)]
    )
    structlog.reset_defaults()
    return dict(json.loads(told.stdout))


async def explain(house: Hospital, application: str, name: str, by: str = "--study") -> dict[str, Any]:
    return await command(house, "explain", "--application", application, by, name)


def hours_from_now(hours: int) -> tuple[str, datetime]:
    opening = (datetime.now() + timedelta(hours=hours)).replace(second=0, microsecond=0)
    return f"{opening:%H:%M}-{opening + timedelta(hours=1):%H:%M}", opening.astimezone()


@pytest.mark.timeout(180)
async def test_a_vendor_that_speaks_dicomweb_and_an_archive_that_is_closed(
    tmp_path: Path, database_url: str
) -> None:
    vendor = ArchiveState()
    runner, port = await serve(simulated.make_app(vendor, files=[]))
    try:
        async with hospital(tmp_path, database_url) as house:
            configuration = house.configuration
            written, opening = hours_from_now(2)
            archives = configuration["archives"]
            archives["pacs"] = {**archives["vna"], "hours": written, "rate": "100/s"}
            configuration["adapters"]["web"] = {
                "kind": "dicomweb",
                "url": f"http://127.0.0.1:{port}/dicom-web",
                "quiet": "200ms",
                "first_poll": "100ms",
                "slowest_poll": "300ms",
            }
            house.application.update(
                adapter="web", manufacturer="Webvendor", choose={"tags": ["PatientName !~ ^TEST"]}
            )
            applications = configuration["departments"]["emergency"]["applications"]
            applications[CLOSED] = {**house.application, "archives": ["pacs"]}
            await house.start()

            # A closed archive is waited for; somebody urgent isn't kept waiting.
            patient = house.admit(count=3, slide=False)
            study = {"study_instance_uid": patient.study}
            _, waiting = await house.api("POST", "jobs", {"application": CLOSED, **study})
            waiting = await wait_for_event(house, waiting["id"], "waiting until")
            assert (waiting["state"], waiting["attempt"]) == ("locating", 0)
            assert (
                timedelta(0) <= datetime.fromisoformat(waiting["next_at"]) - opening < timedelta(seconds=30)
            )
            assert f"outside of its hours ({written})" in waiting["events"][-1]["what"]
            told = await explain(house, CLOSED, patient.study)
            assert (told["would"], datetime.fromisoformat(told["until"])) == ("wait", opening)

            # The vendor returns an object that is an image by its class, and by nothing a vendor's.
            urgent = await house.ask(application=CLOSED, priority=9, **study)
            await house.until(lambda: set(patient.instances) <= set(vendor.instances), "the vendor has it")
            result = make_instance(patient.study, "1.2.3.987", number=90)
            vendor.add(encode(result))
            done = await house.settled(urgent["id"], "done")
            assert done["proof"] == {
                "promised": 3,
                "sent": 3,
                "acknowledged": 3,
                "received": 1,
                "stored": 1,
            }
            assert house.stored_of(patient.study) == [str(result.SOPInstanceUID)]

            # It is in the archive now, and doesn't go to a vendor; nor does a study that a rule leaves out.
            again = await house.settled((await house.ask(**study))["id"], "done")
            assert again["proof"]["promised"] == 3
            (found,) = (event for event in again["events"] if event["what"] == "found in vna")
            assert found["detail"]["left_out_because"] == {"a result of ours": 1}
            told = await explain(house, TRAUMA, patient.study)
            assert await explain(house, TRAUMA, patient.accession, "--accession") == told
            assert (told["instances"], told["left_out_because"]) == (3, {"a result of ours": 1})
            test = make_instance("1.2.3.555", "1.2.3.555.1")
            test.PatientName = "TEST^Phantom"
            house.archive.add(encode(test))
            refused = await house.settled((await house.ask(study_instance_uid="1.2.3.555"))["id"], "failed")
            assert "left out: 1 not PatientName !~ ^TEST" in refused["error"]["message"]

            status, cancelled = await house.api("POST", f"jobs/{waiting['id']}/cancel")
            assert (status, cancelled["state"]) == (200, "cancelled")

            # What they became they would become again; under another configuration not all of them would.
            told = await command(house, "replay", "--since", "2020-01-01")
            assert (told["jobs"], told["same"]) == (4, 4), told
            house.application.update(result_within="1ms", choose={})
            other = tmp_path / "other.yaml"
            other.write_text(yaml.safe_dump(configuration))
            told = await command(house, "replay", "--since", "2020-01-01", config=other.name)
            changed = {each["id"]: each["differences"][0]["would"] for each in told["differ"]}
            assert changed.keys() == {again["id"], refused["id"]}
            assert changed[again["id"]] == "held: no result within 0.001 s"
            assert changed[refused["id"]] == "sent"
    finally:
        await runner.cleanup()


@pytest.mark.timeout(180)
async def test_a_job_that_waits_for_its_place_past_closing_time_isnt_fetched_then(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        archives = house.configuration["archives"]
        archives["pacs"] = dict(archives["vna"])
        house.application["archives"] = ["pacs"]
        house.configuration["adapters"]["milvue"]["max_concurrent"] = 1
        applications = house.configuration["departments"]["emergency"]["applications"]
        applications["other"] = {**house.application, "archives": ["vna"]}
        await house.start()
        first, second, third = (house.admit(slide=False) for _ in range(3))
        house.milvue.behaviours[first.study] = Behaviour(delay=3600)
        ahead = await house.settled(
            (await house.ask(study_instance_uid=first.study))["id"], "analysing", *ENDED
        )
        late = await house.settled(
            (await house.ask(study_instance_uid=second.study))["id"], "submitting", *ENDED
        )
        await house.gateway.stop()

        archives["pacs"]["hours"], opening = hours_from_now(2)
        await house.start()
        await house.api("POST", f"jobs/{ahead['id']}/cancel")
        late = await wait_for_event(house, late["id"], "waiting until")
        assert (late["state"], late["attempt"]) == ("submitting", 0)
        assert timedelta(0) <= datetime.fromisoformat(late["next_at"]) - opening < timedelta(seconds=30)
        assert house.bytes_arrived(second) == [0, 0]
        other = await house.ask(application="other", study_instance_uid=third.study)
        await house.settled(other["id"], "done")  # its place at the vendor is free for others


async def wait_for_event(house: Hospital, job_id: str, what: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            _, job = await house.api("GET", f"jobs/{job_id}")
            if any(what in event["what"] for event in job["events"]):
                break
            await asyncio.sleep(0.05)
    _, job = await house.api("GET", f"jobs/{job_id}")  # its row is read before its events
    return dict(job)


@pytest.mark.timeout(180)
async def test_what_the_archive_sends_is_never_dropped_in_silence(tmp_path: Path, database_url: str) -> None:
    """Neither what it sends without having listed it, nor what came while the job waited for its place."""
    async with hospital(tmp_path, database_url) as house:
        house.application["deliver"] = ["sectra"]
        house.configuration["adapters"]["milvue"]["max_concurrent"] = 1
        await house.start()
        capped = house.admit(count=3, slide=False)
        house.archive.manners.known = 1
        job = await house.settled((await house.ask(study_instance_uid=capped.study))["id"], "held")
        assert "sent instances of the study that it hadn't listed" in job["error"]["message"]
        assert job["proof"]["promised"] == 1
        house.archive.manners.known = None
        await house.api("POST", f"jobs/{job['id']}/resume")
        job = await house.settled(job["id"], "done")
        assert (job["proof"]["promised"], job["proof"]["acknowledged"]) == (3, 3)

        ahead, growing = house.admit(slide=False), house.admit(slide=False)
        house.milvue.behaviours[ahead.study] = Behaviour(delay=3600)
        first = await house.ask(study_instance_uid=ahead.study)
        await house.settled(first["id"], "analysing", *ENDED)
        waits = await house.ask(study_instance_uid=growing.study)
        await house.settled(waits["id"], "submitting", *ENDED)
        late = make_instance(growing.study, "1.2.3.986", number=9)
        late.PatientID = house.archive.instances[growing.instances[0]].header.PatientID
        house.archive.add(encode(late))
        await house.api("POST", f"jobs/{first['id']}/cancel")
        job = await house.settled(waits["id"], "done")
        assert (job["proof"]["promised"], job["proof"]["acknowledged"]) == (3, 3)
        said = "the study has changed in vna: 3 instances are sent now"
        assert said in [event["what"] for event in job["events"]]


@pytest.mark.parametrize("patience", ["wait", "next"])
@pytest.mark.timeout(180)
async def test_while_the_vna_is_away_a_part_of_the_study_elsewhere_isnt_taken_for_the_whole(
    tmp_path: Path, database_url: str, patience: str
) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(hospital(tmp_path, database_url))
        port = free_port()
        archives = house.configuration["archives"]
        archives["pacs"] = dict(archives["vna"])
        archives["vna"] = {"kind": "dicomweb", "url": f"http://127.0.0.1:{port}/dicom-web"}
        house.configuration["destinations"]["pacs"] = {"kind": "stow", "archive": "pacs"}
        house.application.update(archives=["vna", "pacs"], deliver=["sectra"], when_unreachable=patience)
        await house.start()
        patient = house.admit(count=3)
        vna = ArchiveState(instances=dict(house.archive.instances))
        for uid in patient.instances[1:]:
            del house.archive.instances[uid]
        await house.fire(patient.slide)
        if patience == "wait":
            job = await house.job_on(patient.slide, "locating")
            why = "the archive vna is not reachable since "
            job = await wait_for_event(house, job["id"], f"waiting: {why}")
            assert (job["state"], job["attempt"]) == ("locating", 0)
            if job["waits"] is not None:  # it isn't just being looked at
                assert job["waits"]["why"].startswith(why)
            await house.until(
                lambda: why in house.results_on(patient.slide)[0]["displayResult"], "the slide says why"
            )
            runner, _ = await serve(simulated.make_app(vna, files=[]), port=port)
            stack.push_async_callback(runner.cleanup)
        job = await house.job_on(patient.slide, "done")
        [result] = house.results_on(patient.slide)
        told = result["displayProperties"].get("Study")
        found = [event["what"] for event in job["events"] if event["what"].startswith("found")]
        if patience == "wait":
            assert (job["study"]["archive"], job["proof"]["promised"]) == ("vna", 3)
            assert (told, found) == (None, ["found in vna"])
        else:
            assert (job["study"]["archive"], job["proof"]["promised"]) == ("pacs", 1)
            assert told == "from pacs; vna, which may have more of it, couldn't be asked"
            assert found == ["found in pacs; vna wasn't asked"]
