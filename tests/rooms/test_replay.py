"""gateway replay and gateway explain: what another configuration would have made of jobs, and what would
become of a slide; decided by what simulated peers tell, sending nothing."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
import yaml
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from gateway.contract import Finding, Finished
from gateway.jobs.records import InstanceRecord, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.simulate import archive, sectra
from gateway.simulate.archive import ArchiveState
from gateway.simulate.sectra_state import PASSWORD, USERNAME, SectraState
from gateway.simulate.serve import serve
from gateway.simulate.slides import Slide
from gateway.work import results
from gateway.work.steps import IGNORED
from tests.db.crew import ask_for, bring
from tests.peers.dicom_samples import encode, make_study

SINCE = ("--since", "2020-01-01")


@dataclass
class World:
    store: Store
    folder: Path
    archive: ArchiveState
    sectra: SectraState
    settings: dict[str, Any]

    @property
    def applications(self) -> dict[str, Any]:
        found: dict[str, Any] = self.settings["departments"]["er"]["applications"]
        return found

    def study(self, count: int = 2, modality: str = "DX") -> str:
        made = list(make_study(count))
        for dataset in made:
            dataset.Modality = modality
            self.archive.add(encode(dataset))
        return str(made[0].StudyInstanceUID)

    async def run(self, *arguments: str, settings: dict[str, Any] | None = None) -> Result:
        path = self.folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(settings or self.settings))
        told = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--config", str(path)])
        structlog.reset_defaults()
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
        return told

    async def replay(self, settings: dict[str, Any], *more: str) -> Any:
        told = await self.run("replay", *SINCE, "--json", *more, settings=settings)
        assert told.exit_code == 0, told.output
        return json.loads(told.stdout)

    async def sent(self, study: str, **given: Any) -> Job:
        """A job that went all its way to an archive and the RIS."""
        job, _ = await self.store.create(
            ask_for(
                department="er", application="trauma", adapter="milvue", study_instance_uid=study, **given
            )
        )
        at = await bring(self.store, job, State.LOCATING)
        found = [
            InstanceRecord(uid, each.series, None, bytes=1000)
            for uid, each in self.archive.instances.items()
            if each.study == study
        ]
        await self.store.promise(at, found)
        await self.store.move(
            at, to=State.SUBMITTING, archive="vna", promised=len(found), what="found in vna"
        )
        at = await bring(self.store, job, State.SUBMITTING)
        await self.store.record_sent(at, found)
        await self.store.move(at, to=State.ANALYSING, ticket={"reference": study})
        at = await bring(self.store, job, State.ANALYSING)
        await self.store.plan_deliveries(at, ["vna", "ris"])
        result = results.to_json(Finished("seen", findings=(Finding("Fracture", "none", score=0.9),)), Path())
        await self.store.move(at, to=State.DELIVERING, vendor_version="3.1", result=result)
        at = await bring(self.store, job, State.DELIVERING)
        await self.store.move(at, to=State.DONE, after=None)
        return at

    async def ended(self, state: State, **given: Any) -> Job:
        """A job that ended when its study was looked for."""
        values = {name: given.pop(name) for name in list(given) if name.startswith("error_")}
        job, _ = await self.store.create(
            ask_for(**{"department": "er", "application": "trauma", "adapter": "milvue", **given})
        )
        at = await bring(self.store, job, State.LOCATING)
        await self.store.move(at, to=state, after=None, **values)
        return at


@pytest.fixture
async def world(store: Store, database_url: str, secret_key: str, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        images, slides = ArchiveState(), SectraState()
        for peer in (archive.make_app(images, files=[]), sectra.make_app(slides)):
            runner, _ = await serve(peer)
            stack.push_async_callback(runner.cleanup)
        settings = {
            "database_url": database_url,
            "secret_keys": [secret_key],
            "data_dir": str(tmp_path / "data"),
            "sectra": {
                "servers": {
                    "main": {"callback_urls": [slides.url], "username": USERNAME, "password": PASSWORD}
                }
            },
            "archives": {"vna": {"kind": "dicomweb", "url": images.url}},
            "destinations": {
                "vna": {"kind": "stow", "archive": "vna"},
                "ris": {"kind": "hl7", "host": "127.0.0.1", "port": 1},
            },
            "adapters": {
                "milvue": {"kind": "milvue", "url": "http://127.0.0.1:1", "token": "t", "commands": ["x"]},
                "other": {"kind": "milvue", "url": "http://127.0.0.1:1", "token": "t", "commands": ["x"]},
                "kidney": {"kind": "sectra-ia", "url": "http://127.0.0.1:1"},
            },
            "public_url": "http://127.0.0.1:1",
            "departments": {
                "er": {
                    "applications": {
                        "trauma": {
                            "display_name": "Trauma",
                            "adapter": "milvue",
                            "archives": ["vna"],
                            "deliver": ["vna", "ris"],
                            "accept": {"modalities": ["DX"]},
                        },
                        "kidney": {"display_name": "Kidney", "adapter": "kidney"},
                    }
                }
            },
        }
        yield World(store, tmp_path, images, slides, settings)


async def test_jobs_are_decided_again_by_another_configuration(world: World, database_url: str) -> None:
    sent = await world.sent(world.study())
    scan = world.study(3, "CT")
    failed = await world.ended(State.FAILED, study_instance_uid=scan, error_message="nothing")
    stopped = await world.ended(State.CANCELLED, study_instance_uid=scan)
    unfound = await world.ended(State.FAILED, study_instance_uid="1.2.3", error_message="nowhere")
    gone = await world.ended(State.FAILED, study_instance_uid="1.2.4", error_message="nowhere")
    slide = {
        "application": "kidney",
        "adapter": "kidney",
        "server": "main",
        "callback_url": world.sectra.url,
        "callback_token": world.sectra.mint("kidney"),
    }
    world.sectra.slides["s1"] = Slide(id="s1", width=4000, height=3000)
    ignored = await world.ended(
        State.CANCELLED,
        **slide,
        slide_id="s1",
        origin=Origin.NOTIFICATION,
        error_kind=IGNORED,
        error_message="not this staining",
    )
    dead = await world.ended(State.HELD, **{**slide, "callback_token": "dead"}, slide_id="s1")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        days = timedelta(days=400)
        await connection.execute("UPDATE jobs SET updated_at = now() - %s WHERE id = %s", (days, gone.id))
    await world.store.purge({})
    same = await world.replay(world.settings)
    assert (same["jobs"], same["same"]) == (7, 4)
    assert {each["id"] for each in same["differ"]} == {str(ignored.id)}  # it is accepted now
    assert {each["id"] for each in same["undecided"]} == {str(gone.id), str(dead.id)}

    other = copy.deepcopy(world.settings)
    trauma = other["departments"]["er"]["applications"]["trauma"]
    other["departments"] = {"night": {"applications": {"trauma": trauma}}}
    trauma |= {"adapter": "other", "deliver": ["vna"], "priority": 4, "accept": {"modalities": ["DX", "CT"]}}
    told = await world.replay(other)
    found = {
        each["id"]: {row["what"]: (row["was"], row["would"]) for row in each["differences"]}
        for each in told["differ"]
    }
    everywhere = {"department": ("er", "night"), "adapter": ("milvue", "other")}
    assert found[str(sent.id)] == {**everywhere, "delivered to": ("ris, vna", "vna")}
    assert found[str(failed.id)] == {**everywhere, "outcome": ("failed: nothing", "sent")}
    assert found[str(stopped.id)] == found[str(unfound.id)] == everywhere
    for each in (ignored, dead):
        assert found[str(each.id)]["application"] == ("kidney", "refused: there is none of this name")
    (undecided,) = told["undecided"]
    assert undecided["id"] == str(gone.id) and "was removed on" in undecided["why"]

    closing = datetime.now(UTC).astimezone() - timedelta(hours=1)
    other = copy.deepcopy(world.settings)
    trauma = other["departments"]["er"]["applications"]["trauma"]
    other["archives"]["vna"] |= {
        "hours": f"{closing - timedelta(hours=1):%H:%M}-{closing:%H:%M}",
        "rate": "1/h",
    }
    trauma |= {"choose": {"tags": ["InstanceNumber = 1"]}, "register": {"version": "3.0", "strict": True}}
    other["departments"]["er"]["applications"]["kidney"]["accept"] = {"staining": ["H&E"]}
    trauma |= {"deliver": ["vna"], "when": [{"finding": "fracture", "score": ">0.8", "deliver": ["ris"]}]}
    told = await world.replay(other)
    found = {
        each["id"]: {row["what"]: (row["was"], row["would"]) for row in each["differences"]}
        for each in told["differ"]
    }
    ours = found[str(sent.id)]
    assert "delivered to" not in ours, "by the rule it goes to the RIS as before"
    assert ours["fetched"][0] == "at once" and "hours of vna until" in ours["fetched"][1]
    assert ours["instances"] == ("2", "1 (left out: 1 not InstanceNumber = 1)")
    assert ours["result"] == ("of version 3.1", "held: 3.0 is the accepted one")
    whys = {each["id"]: each["why"] for each in told["undecided"]}
    assert whys.keys() == {str(gone.id), str(dead.id)} and "Sectra has to tell" in whys[str(dead.id)]

    trauma["accept"]["max_bytes"] = "1.5kB"
    del trauma["choose"]
    shown = await world.run("replay", *SINCE, "--application", "trauma", settings=other)
    assert shown.exit_code == 0 and str(sent.id) in shown.stdout
    assert "the study is larger than this application accepts" in shown.stdout
    assert "5 jobs since" in shown.stdout and "1 can't be decided any more" in shown.stdout

    assert {call.method for call in world.archive.front.calls} == {"GET"}
    assert (await world.run("replay")).exit_code == 2
    broken = await world.run("replay", *SINCE, settings={**other, "departments": 5})
    assert broken.exit_code == 1 and "departments" in broken.output


async def test_what_would_happen_to_a_slide(world: World) -> None:
    study = world.study()
    world.sectra.slides["s1"] = Slide(id="s1", width=4000, height=3000, study_instance_uid=study)

    async def explain(application: str, *more: str) -> Any:
        told = await world.run("explain", "--application", application, "--json", *more)
        return json.loads(told.stdout)

    told = await explain("trauma", "--slide", "s1")
    assert (told["would"], told["study"], told["instances"]) == ("send", study, 2)
    assert (await explain("kidney", "--slide", "s1"))["would"] == "call"
    assert (await explain("kidney", "--study", study))["would"] == "fail"
    unknown = await world.run("explain", "--application", "trauma", "--slide", "nobody")
    assert unknown.exit_code == 1 and "knows this slide" in unknown.output
    world.applications["trauma"]["accept"] = {"staining": ["H&E"]}
    world.sectra.slides["s1"] = Slide(id="s1", width=4000, height=3000, staining="Ki67")
    told = await explain("trauma", "--slide", "s1")
    assert told["would"] == "fail" and "staining" in told["why"]
    both = await world.run("explain", "--application", "trauma", "--slide", "s1", "--study", study)
    assert both.exit_code == 2
    del world.settings["sectra"]["servers"]["main"]["username"]
    alone = await world.run("explain", "--application", "trauma", "--slide", "s1")
    assert alone.exit_code == 1 and "has a user of ours" in alone.output
