"""The real gateway as processes of its own, in a hospital of simulated peers.

    async with hospital(tmp_path, database_url) as house:
        await house.start()
        answer = await house.fire("slide-hand")
        job = await house.job_on("slide-hand", "done")

The peers listen inside the test, so that it can look at their state, and hold a call at a gate: the moment at
which the gateway is killed is then the moment that was meant. What is left at the end is ended, and every
house proves on its way out that neither its logs nor its refusals told a secret or a patient's data.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.fernet import Fernet
from pydicom.uid import generate_uid

from gateway.simulate import archive, milvue, patients, sectra, sectra_state
from gateway.simulate.archive import ArchiveState
from gateway.simulate.firing import Answer, Fire, fire
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.sectra_state import SectraState
from gateway.simulate.serve import serve
from gateway.simulate.slides import Slide
from tests.peers.dicom_samples import encode, make_study
from tests.peers.nursery import Born, bear

TRAUMA = "milvue-trauma"
TOKENS = {role: f"secret-of-{role}" for role in ("viewer", "operator", "admin")}
ARCHIVE_PASSWORD = "secret-of-the-archive"
PATIENCE = 60.0
ENDED = ("done", "failed", "held", "cancelled")
_BYTECODE = Path(tempfile.gettempdir()) / f"gateway-tests-bytecode-{os.getuid()}"

Configuration = dict[str, Any]


@dataclass
class Gate:
    """Where a call waits, before its peer has done anything or (`after`) when only the answer lacks."""

    method: str
    path: str
    after: bool
    skip: int
    body: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self) -> None:
        self.reached.set()
        await self.opened.wait()

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()


class Gates:
    def __init__(self) -> None:
        self._closed: list[Gate] = []
        self._passed: list[Gate] = []

    def close(self, method: str, path: str, *, after: bool = False, skip: int = 0, body: str = "") -> Gate:
        """The next call of this kind (after `skip` others) stops here; the others pass."""
        self._closed.append(Gate(method, path, after, skip, body))
        return self._closed[-1]

    def open_all(self) -> None:
        for gate in (*self._closed, *self._passed):
            gate.opened.set()
        self._closed.clear()

    def build(self) -> Any:
        @web.middleware
        async def stand(request: web.Request, handler: Handler) -> web.StreamResponse:
            gate = await self._take(request)
            if gate is not None and not gate.after:
                await gate.hold()
            response = await handler(request)
            if gate is not None and gate.after:
                await gate.hold()
            return response

        return stand

    async def _take(self, request: web.Request) -> Gate | None:
        for gate in list(self._closed):
            if gate.method == request.method and re.search(gate.path, request.path):
                if gate.body and gate.body not in await request.text():
                    continue
                if gate.skip:
                    gate.skip -= 1
                    continue
                self._closed.remove(gate)
                self._passed.append(gate)
                return gate
        return None


def environment_of_gateways() -> dict[str, str]:
    """To compile all that is imported takes longer than to import it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(_BYTECODE)}


def _program(words: Path, cold: bool) -> tuple[str, ...]:
    return ("-m", "gateway") if cold else ("-m", "tests.peers.pulse", str(words))


class Gateway:
    """One process. `url` is known once its doors are open."""

    def __init__(self, process: asyncio.subprocess.Process | Born, words: Path) -> None:
        self.process = process
        self.url = ""
        self.words = words

    @property
    def log(self) -> str:
        return self.words.read_text(errors="replace") if self.words.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    async def listen(self, patience: float = PATIENCE) -> None:
        async with asyncio.timeout(patience):
            while not (ports := [event["port"] for event in self.events() if event["event"] == "listening"]):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the gateway didn't start: {self.log[-2000:]}")
                await asyncio.sleep(0.05)
        self.url = f"http://127.0.0.1:{ports[0]}"

    async def kill(self) -> None:
        """As kill -9 does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), 40)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise


@dataclass
class Patient:
    """Admitted for one test: a slide, a study of their own, and what must not be found in a log."""

    slide: str
    study: str
    accession: str
    instances: tuple[str, ...]


@dataclass
class Hospital:
    folder: Path
    configuration: Configuration
    sectra: SectraState
    archive: ArchiveState
    milvue: MilvueState
    http: aiohttp.ClientSession
    gates: Gates = field(default_factory=Gates)
    gateways: list[Gateway] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)
    _admitted: int = 0

    @property
    def gateway(self) -> Gateway:
        return self.gateways[-1]

    @property
    def application(self) -> Configuration:
        """The application that most tests use, as it will be configured at the next start."""
        found: Configuration = self.configuration["departments"]["emergency"]["applications"][TRAUMA]
        return found

    def app(self, application: str = TRAUMA) -> str:
        return f"{self.gateway.url}/ia/{application}"

    # -- the gateway ----------------------------------------------------------------------------------

    async def start(
        self,
        *arguments: str,
        cold: bool = False,
        open_files: int | None = None,
        program: Sequence[str] = (),
    ) -> Gateway:
        """`cold`: as it is started outside of tests, where nobody has imported anything for it. `open_files`:
        how many this machine allows; at first it may have half of them. `program`: what runs it with the
        configuration of this folder, if not this Python."""
        config = self.write_configuration()
        words = self.folder / f"gateway-{len(self.gateways)}.log"
        environment = environment_of_gateways()
        command = ["run", "--config", str(config), *arguments]
        process: asyncio.subprocess.Process | Born
        if not cold and not program and open_files is None:
            process = bear(command, environment, words)
        else:
            nofile = f"--nofile={(open_files or 0) // 2}:{open_files}"
            with words.open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *(() if open_files is None else ("prlimit", nofile, "--")),
                    *(program or (sys.executable, *_program(words, cold), *command)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
        self.gateways.append(Gateway(process, words))
        if arguments != ("--only", "workers"):
            await self.gateway.listen()
        return self.gateway

    def write_configuration(self) -> Path:
        config = self.folder / "gateway.yaml"
        fresh = config.with_suffix(".fresh")
        fresh.write_text(yaml.safe_dump(self.configuration))
        fresh.replace(config)  # at once: a gateway that begins just now may be reading it
        return config

    # -- patients -------------------------------------------------------------------------------------

    def admit(
        self, count: int = 2, *, slide: bool = True, twin_of: Patient | None = None, **shape: Any
    ) -> Patient:
        """A patient with a study in the archive and a slide in Sectra. `twin_of`: the same accession."""
        self._admitted += 1
        files = list(make_study(count, **shape))
        for dataset in files:
            if twin_of is not None:
                dataset.AccessionNumber = twin_of.accession
            dataset.PatientName = f"Zyxwvut^Number{self._admitted}"
        first = files[0]
        for dataset in files:
            self.archive.add(encode(dataset))
        patient = Patient(
            f"slide-{self._admitted:03}",
            str(first.StudyInstanceUID),
            str(first.AccessionNumber),
            tuple(str(each.SOPInstanceUID) for each in files),
        )
        self.secrets |= {"Zyxwvut", str(first.PatientID), patient.accession}
        if slide:
            self.show(patient.slide, study_instance_uid=patient.study, accession_number=patient.accession)
        return patient

    def show(self, slide_id: str, **described: Any) -> None:
        self.sectra.slides[slide_id] = Slide(id=slide_id, width=4000, height=3000, **described)

    def bytes_arrived(self, patient: Patient) -> list[int]:
        """How often the bytes of each instance reached Milvue."""
        return [self.milvue.arrivals[uid] for uid in patient.instances]

    def results_on(self, slide: str, application: str = TRAUMA) -> list[dict[str, Any]]:
        return self.sectra.list_results(application, slide)

    def stored_of(self, study: str) -> list[str]:
        """The result objects that came into the archive."""
        return [
            uid
            for uid in self.archive.stored
            if str(self.archive.instances[uid].header.StudyInstanceUID) == study
        ]

    # -- Sectra's and other systems' calls ------------------------------------------------------------

    async def fire(self, slide: str, action: str = "create", **shot: Any) -> Answer:
        asked = {"applicationId": TRAUMA, **shot}
        answer = await fire(
            self.sectra,
            Fire.model_validate(
                {"url": self.app(asked["applicationId"]), "slideId": slide, "action": action, **asked}
            ),
        )
        self._note(answer.status, json.dumps(answer.body))
        return answer

    async def invoke(
        self, body: object, *, url: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """An invocation as it stands, however wrong."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with self.http.post(url or self.app(), data=data, headers=sent) as response:
            text = await response.text()
            self._note(response.status, text)
            return response.status, json.loads(text), response.headers

    def invocation(self, slide: str, **fields: Any) -> dict[str, Any]:
        return {
            "applicationId": TRAUMA,
            "slideId": slide,
            "callbackInfo": {"url": self.sectra.url, "token": self.sectra.mint(TRAUMA)},
            "context": {},
            "cancellationToken": f"cancel-{slide}",
            "action": "create",
            "input": {"type": "wholeSlide"},
            **fields,
        }

    async def api(
        self, method: str, path: str, body: object = None, *, role: str | None = "operator", **more: Any
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {}
        async with self.http.request(
            method, f"{self.gateway.url}/api/v1/{path}", json=body, headers=headers, **more
        ) as response:
            text = await response.text()
            self._note(response.status, text)
            return response.status, json.loads(text)

    async def ask(self, **wanted: Any) -> dict[str, Any]:
        """A job by REST."""
        status, job = await self.api("POST", "jobs", {"application": TRAUMA, **wanted})
        assert status == 202, job
        return dict(job)

    async def jobs_on(self, slide: str) -> list[dict[str, Any]]:
        _, listed = await self.api("GET", "jobs", params={"limit": "500"})
        return [job for job in listed["jobs"] if job["slide_id"] == slide]

    async def job_on(self, slide: str, *states: str) -> dict[str, Any]:
        """The youngest job of the slide, whole, once it is in one of the states."""
        async with asyncio.timeout(PATIENCE):
            while not (jobs := await self.jobs_on(slide)):
                await asyncio.sleep(0.05)
        return await self.settled(jobs[0]["id"], *states)

    async def settled(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of the states (by default: ended or held)."""
        wanted = states or ENDED
        job: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    _, job = await self.api("GET", f"jobs/{job_id}")
                    if job["state"] in wanted:
                        return job
                    if job["state"] in ENDED and job["state"] not in ("held",):
                        break
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        raise AssertionError(f"{job['state']}, not {wanted}: {json.dumps(job, indent=1)}")

    async def until(self, condition: Any, what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not (await told if isawaitable(told := condition()) else told):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it never came about that {what}") from None

    # -- the proof ------------------------------------------------------------------------------------

    def _note(self, status: int, text: str) -> None:
        if status >= 400:
            self.refusals.append(text)

    def leaks(self) -> set[str]:
        """Secrets and identifying values that were told to the log or to a refused caller."""
        told = "\n".join([*(each.log for each in self.gateways), *self.refusals])
        tokens = {*self.sectra.tokens, *(firing.token for firing in self.sectra.firings)}
        secrets = self.secrets | tokens | {*TOKENS.values(), ARCHIVE_PASSWORD, self.milvue.token}
        for identity in (*patients.XRAYS, patients.SLIDE):
            secrets |= {identity.patient_id, identity.patient_name.split("^")[1], identity.accession_number}
        secrets.add(sectra_state.PASSWORD)
        return {secret for secret in secrets if secret in told}


def configure(folder: Path, database_url: str | None, peers: Mapping[str, str]) -> Configuration:
    storage: Configuration = {"data_dir": str(folder / "data")}
    if database_url is not None:
        storage |= {"database_url": database_url, "secret_keys": [Fernet.generate_key().decode()]}
    application = {
        "display_name": "Milvue trauma",
        "manufacturer": "Milvue",
        "adapter": "milvue",
        "archives": ["vna"],
        "deliver": ["sectra", "vna"],
        "settle": "300ms",
        "result_within": "10m",
        "retry": {"attempts": 6, "first": "200ms", "most": "1s"},
    }
    return storage | {
        "listen": {"host": "127.0.0.1", "port": 0},
        "api_tokens": [
            {"name": role, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
            for role, token in TOKENS.items()
        ],
        "sectra": {"servers": {"main": {"callback_urls": [f"{peers['sectra']}/SectraPathologyServer/"]}}},
        "archives": {
            "vna": {
                "kind": "dicomweb",
                "url": f"{peers['archive']}/dicom-web",
                "username": "gw",
                "password": ARCHIVE_PASSWORD,
            }
        },
        "destinations": {"vna": {"kind": "stow", "archive": "vna"}},
        "adapters": {
            "milvue": {
                "kind": "milvue",
                "url": peers["milvue"],
                "token": milvue.TOKEN,
                "commands": ["smarturgences"],
                "first_poll": "100ms",
                "sure_after": "400ms",
                "slowest_poll": "500ms",
                "max_concurrent": 8,
            }
        },
        "departments": {"emergency": {"contact": "it@hospital", "applications": {TRAUMA: application}}},
        "alerts": {"ask_idle": "0s"},  # nobody is called but for a job
    }


@asynccontextmanager
async def hospital(folder: Path, database_url: str | None = None) -> AsyncIterator[Hospital]:
    """The peers are up; the gateway isn't started yet, so that its configuration can still be changed."""
    async with AsyncExitStack() as stack:
        gates = Gates()
        states = SectraState(), ArchiveState(), MilvueState(behaviours={"*": Behaviour(delay=0.1)})
        urls = {}
        for name, app in (
            ("sectra", sectra.make_app(states[0])),
            ("archive", archive.make_app(states[1], username="gw", password=ARCHIVE_PASSWORD)),
            ("milvue", milvue.make_app(states[2])),
        ):
            app.middlewares.append(gates.build())
            runner, port = await serve(app)
            stack.push_async_callback(runner.cleanup)
            urls[name] = f"http://127.0.0.1:{port}"
        stack.callback(gates.open_all)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE, connect=10))
        )
        house = Hospital(folder, configure(folder, database_url, urls), *states, http, gates)
        try:
            yield house
            for gateway in house.gateways:
                await gateway.stop()
            assert house.leaks() == set()
        finally:
            for gateway in house.gateways:
                await gateway.kill()


def unknown_study() -> str:
    return str(generate_uid())
