"""A study is pointed out to its vendor, by command and from the job's page, and the audit says by whom."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from pathlib import Path

import aiohttp
import structlog
import yaml
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from tests.daemon.test_console import Browser, audit, csrf_in
from tests.peers.gateway import TOKENS, Hospital, hospital


async def point_out(house: Hospital, job: str, config: str = "gateway.yaml") -> Result:
    asked = ["interesting", job, "--config", str(house.folder / config)]
    told = await asyncio.to_thread(CliRunner().invoke, app, asked)
    structlog.reset_defaults()
    return told


async def test_by_command_and_from_the_jobs_page(tmp_path: Path, database_url: str) -> None:
    async with (
        hospital(tmp_path, database_url) as house,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        patient = house.admit()
        await house.start()
        await house.fire(patient.slide)
        job = await house.job_on(patient.slide, "done")
        study = house.milvue.studies[patient.study]
        told = await point_out(house, job["id"][:13])
        assert (told.exit_code, told.stdout) == (0, f"milvue was shown the study of job {job['id']}\n")
        assert study.interesting == 1

        page = f"/jobs/{job['id']}"
        viewer, operator = Browser(house, http), Browser(house, http)
        await viewer.sign_in(TOKENS["viewer"])
        _, text, _ = await viewer.ask("GET", page)
        assert "Show this study" not in text
        status, _, _ = await viewer.ask("POST", f"{page}/interesting", data={"csrf": csrf_in(text)})
        assert status == 403
        await operator.sign_in(TOKENS["operator"])
        _, text, _ = await operator.ask("GET", page)
        assert "Show this study to the vendor" in text
        status, _, headers = await operator.ask("POST", f"{page}/interesting", data={"csrf": csrf_in(text)})
        assert (status, headers["Location"]) == (303, f"{page}?told=interesting-1")
        assert "Shown to the vendor" in (await operator.ask("GET", headers["Location"]))[1]
        assert study.interesting == 2

        del house.milvue.studies[patient.study]
        status, refused, _ = await operator.ask("POST", f"{page}/interesting", data={"csrf": csrf_in(text)})
        assert status == 409 and "know this study any more" in refused
        acts = [(who, detail) for who, what, detail in await audit(house) if what == "interesting"]
        assert len(acts) == 3 and [who for who, _ in acts[1:]] == ["operator", "operator"]
        assert [set(detail) for _, detail in acts] == [{"adapter"}, {"adapter"}, {"adapter", "failed"}]

        other = deepcopy(house.configuration)
        other["adapters"]["milvue"] = {"kind": "dicomweb", "url": "https://vendor.example"}
        (house.folder / "other.yaml").write_text(yaml.safe_dump(other))
        told = await point_out(house, job["id"], "other.yaml")
        assert told.exit_code == 1
        assert "the vendor of adapters.milvue has no way to be shown a study" in told.stderr
