"""A peer's own words may hold anything: the credential it was called with, another patient's name. They never
stand in clear where we keep or tell something, and operators read them all the same."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
import structlog
from aiohttp import web
from prometheus_client import generate_latest
from typer.testing import CliRunner

from gateway import logs
from gateway.__main__ import app as command_line
from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Callback, Failure, Order, Permanent, Ticket
from gateway.delivery.hl7 import Message
from gateway.delivery.mllp import Listener, send
from gateway.intake import problems
from gateway.intake.access import Access
from gateway.intake.rest import RestDoor
from gateway.jobs.engine import Engine
from gateway.jobs.inspection import Inspection
from gateway.jobs.outcomes import Outcome
from gateway.jobs.records import Job
from gateway.jobs.signing import TrustedKeys
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.sectra.client import SectraClient
from gateway.sessions import Sessions
from gateway.settings.sections import ApiToken, Retry, Settings
from gateway.watch.metrics import JobMetrics
from gateway.work.orders import NoInstances
from gateway.work.vendors import Vendors
from tests.db.crew import BRISK, Script, ask_for, until
from tests.db.test_housekeeping import everything_in

NAME = "KANARIENVOGEL"
SECRET = "secret-canary"
VIEWER, OPERATOR = (f"a-token-of-the-{role}" for role in ("viewer", "operator"))
STATUSES = (400, 401, 403, 404, 409, 412, 415, 422, 429, 500, 503)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def _repeat(request: web.Request) -> web.Response:
    """Refuses with all that it was told, and a patient's name: in its body, its reason, a header."""
    echo = " ".join([*request.headers.values(), str(request.url), (await request.read()).decode(), NAME])
    status = int(request.path.split("/")[1])
    told = {"status": "error", "message": echo, "detail": echo, "title": NAME}
    return web.json_response(told, status=status, reason=f"No {NAME}", headers={"X-Said": NAME})


async def _refuse_hl7(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\x1c")
    answer = f"MSH|^~\\&|A|B|C|D|1||ACK|1|P|2.3\rMSA|AE|7|no {NAME}\rERR|{NAME}^{SECRET}\r"
    writer.write(b"\x0b" + answer.encode() + b"\x1c\x0d")
    await writer.drain()
    writer.close()


@asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def peers(work: Path) -> AsyncIterator[dict[str, Callable[[int], Awaitable[object]]]]:
    """By their names, what we ask of them; the number is the status that they refuse us with."""
    echo = web.Application()
    echo.router.add_route("*", "/{path:.*}", _repeat)
    async with (
        served(echo) as url,
        Sessions() as sessions,
        aiohttp.ClientSession() as session,
        await asyncio.start_server(_refuse_hl7, "127.0.0.1", 0) as ris,
    ):
        port = ris.sockets[0].getsockname()[1]
        order = Order("j", "a", "1.2.3", slide_id="S", callback=Callback(f"{url}/200/", SECRET))

        def vendor(status: int, **options: Any) -> Any:
            there = {"v": {"url": f"{url}/{status}", **options}}
            return Vendors(Settings(adapters=there), sessions).make("v", work)

        def milvue(status: int) -> Any:
            return vendor(status, kind="milvue", token=SECRET, commands=["smarturgences"])

        ticket = Ticket("1.2.3", state={"study": "1.2.3"})
        yield {
            "milvue-find": lambda status: milvue(status).find(order),
            "milvue-poll": lambda status: milvue(status).poll(ticket),
            "dicomweb": lambda status: vendor(status, kind="dicomweb", token=SECRET).find(order),
            "sectra-ia": lambda status: vendor(status, kind="sectra-ia", headers={"X-Key": SECRET}).submit(
                order, NoInstances("1.2.3")
            ),
            "archive": lambda status: DicomwebArchive(
                "vna", f"{url}/{status}", session, username="u", password=SECRET
            ).find_studies(accession_number="A"),
            "sectra": lambda status: SectraClient(
                session, f"{url}/{status}", SECRET, software_version="1"
            ).slide_info("S"),
            "ris": lambda _: send(Listener("destination ris", "127.0.0.1", port), Message("7", "MSH|^~\\&|")),
        }


class Asking(Script):
    """Each job asks the peer that its application names, which refuses with the status of its accession
    number."""

    def __init__(self, asked: dict[str, Callable[[int], Awaitable[object]]], store: Store) -> None:
        super().__init__(retry=Retry(attempts=2, first=0.01, most=0.02))
        self._asked = asked
        self._store = store
        self.refused: set[str] = set()

    async def take(self, job: Job) -> Outcome:
        if job.state is not State.RECEIVED:
            return await super().take(job)
        try:
            await self._asked[job.application](int(job.accession_number or 0))
        except Failure as failure:
            self.refused.add(f"{job.application} {job.accession_number}")
            await self._store.note(job, "a delivery failed", {"message": failure.message}, failure.said)
            raise
        raise Permanent("it took what it was given", "Nothing to do.")


async def test_no_foreign_word_stands_in_clear(
    store: Store, database_url: str, secret_key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.begin()
    async with peers(tmp_path) as asked:
        steps = Asking(asked, store)
        jobs = [
            (await store.create(ask_for(application=name, accession_number=str(status))))[0]
            for name, status in product(asked, STATUSES)
        ]
        observer = JobMetrics()
        async with Engine(store, database_url, steps, {}, BRISK, observer).working():

            async def all_told() -> bool:
                now = [await store.get(job.id) for job in jobs]
                return all(job is not None and job.error_kind and job.lease_holder is None for job in now)

            await until(all_told)
    assert {each.partition(" ")[0] for each in steps.refused} == set(asked), "a peer was never refused"

    viewed = await looked_at(store, [str(job.id) for job in jobs], VIEWER)
    read = await looked_at(store, [str(job.id) for job in jobs], OPERATOR)
    exported = await exporting(database_url, secret_key, tmp_path)
    told = {
        "the database": everything_in(database_url),
        "what a viewer sees": viewed,
        "the export": exported,
        "the log": "".join(capfd.readouterr()),
        "the metrics": generate_latest().decode(),
    }
    assert "a step failed" in told["the log"] or "job held" in told["the log"]
    for place, text in told.items():
        assert NAME not in text, f"in {place}: …{text[text.index(NAME) - 300 :][:400]}"
        assert SECRET not in text, f"in {place}: …{text[text.index(SECRET) - 300 :][:400]}"
    assert NAME in read, "operators see what was said"
    with psycopg.connect(database_url) as connection:
        looks = connection.execute(
            "SELECT count(DISTINCT job_id), min(who) FROM audit WHERE what = 'looked at what peers said'"
        ).fetchone()
    assert looks is not None and looks[0] >= 20 and looks[1] == "operator"
    inspection = Inspection()
    await inspection.run(store, TrustedKeys([]))
    assert inspection.breaks == []


async def test_what_was_said_goes_with_the_rest_of_what_is_kept(store: Store, database_url: str) -> None:
    job, _ = await store.create(ask_for())
    [at] = await store.claim(1, 1, 60, {})
    said = {"words": NAME * 5000, "deep": {"n": 1, "text": NAME}}
    failure = Permanent("the vendor refuses it", said=said)
    await store.move(at, to=State.FAILED, after=None, said=failure.said)
    [kept] = await store.said_of(job.id, "ops")
    assert kept.words["deep"] == said["deep"] and len(kept.words["words"]) == 2000
    assert NAME not in everything_in(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET updated_at = now() - interval '2 days'")
    assert await store.purge({}, otherwise=1) == 1
    assert await store.said_of(job.id, "ops") == []


async def looked_at(store: Store, ids: list[str], token: str) -> str:
    """All that REST says to whoever has the token."""
    tokens = [
        ApiToken(name=role, role=role, sha256=digest(text))
        for role, text in (("viewer", VIEWER), ("operator", OPERATOR))
    ]
    application = web.Application(middlewares=[problems.explain])
    application.add_routes(RestDoor(Settings.model_construct(), store, Access(tokens)).routes())
    told = []
    async with served(application) as url, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {token}"}
        for path in ("jobs?limit=500", *(f"jobs/{each}" for each in ids)):
            async with session.get(f"{url}/api/v1/{path}", headers=headers) as answer:
                assert answer.status == 200
                told.append(await answer.text())
        headers["Last-Event-ID"] = "0-0"
        async with session.get(f"{url}/api/v1/events", headers=headers) as answer:
            for _ in range(5):
                told.append((await answer.content.readany()).decode())
    return "\n".join(told)


async def exporting(database_url: str, secret_key: str, folder: Path) -> str:
    environment = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_SECRET_KEYS": json.dumps([secret_key]),
        "GATEWAY_DATA_DIR": str(folder),
    }
    told = ""
    for arguments in (["jobs", "export"], ["jobs", "list", "--json", "--limit", "500"]):
        done = await asyncio.to_thread(CliRunner().invoke, command_line, arguments, env=environment)
        assert done.exit_code == 0, done.output
        told += done.stdout
    structlog.reset_defaults()
    return told
