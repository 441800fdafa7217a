"""gateway demo: a whole hospital on one machine, and three jobs that travel the whole way."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway import logs
from gateway.building.entrances import listening
from gateway.building.ground import lay_lasting
from gateway.building.tenancy import Tenancy
from gateway.commands import demo_past, demo_shadow, demo_troubles
from gateway.commands.opening import FAILED, STOPPED, complain, go
from gateway.database import prepare
from gateway.embedded.server import serve
from gateway.loops import beside
from gateway.settings.load import load
from gateway.settings.sections import Settings
from gateway.settings.source import Source
from gateway.simulate import archive, ia_app, milvue, patients, sectra
from gateway.simulate.archive import ArchiveState
from gateway.simulate.firing import Fire, fire
from gateway.simulate.milvue import MilvueState
from gateway.simulate.sectra_state import SectraState
from gateway.simulate.serve import serve as open_peer
from gateway.systemd import Systemd
from gateway.watch.roll import Roll

_PATIENCE = 60.0
_APPLICATION = "milvue-trauma"
_PATHOLOGY = "nuclei"

_CONFIGURATION = """\
public_url: {gateway}
listen: {{host: 127.0.0.1, port: {port}}}
data_dir: {data_dir}
api_tokens:
  - {{name: demo, role: operator, sha256: {token_sha256}}}
sectra:
  servers:
    main: {{callback_urls: ["{sectra}/SectraPathologyServer/"]}}
archives:
  vna: {{kind: dicomweb, url: {archive}/dicom-web}}
destinations:
  vna: {{kind: stow, archive: vna}}
{destinations}adapters:
  milvue: {{kind: milvue, url: {milvue}, token: {milvue_token}, commands: [smarturgences], max_concurrent: 8}}
  nuclei: {{kind: sectra-ia, url: "{nuclei}/ia/nuclei", final_when: dense}}
{adapters}departments:
  emergency:
    contact: radiology-it@hospital
    applications:
      {application}:
        display_name: Milvue trauma
        manufacturer: Milvue
        adapter: milvue
        archives: [vna]
        deliver: [sectra, vna]
        accept: {{modalities: [CR, DX]}}
        register: {{owner: Dr Ito, purpose: fracture triage, version: "{version}", accepted: {accepted}}}
        priority: 5
        settle: 500ms
        shadow: [{shadow}]
  pathology:
    contact: pathology-it@hospital
    applications:
      {pathology}:
        display_name: Nuclei
        manufacturer: Hospital in a box
        adapter: nuclei
        deliver: [sectra]
        settle: 500ms
{departments}"""


@dataclass(frozen=True, slots=True)
class Hospital:
    sectra: SectraState
    archive: ArchiveState
    milvue: MilvueState
    tenancy: Tenancy
    url: str
    token: str

    def app(self, application: str) -> str:
        return f"{self.url}/ia/{application}"


@dataclass(slots=True)
class Followed:
    title: str
    slide: str | None
    application: str
    study: str | None  # whose results go to the archive too
    job: dict[str, Any] | None = None

    @property
    def state(self) -> str:
        return "asked for" if self.job is None else str(self.job["state"])

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled", "held")


def demo(stays: bool) -> int:
    try:
        return go(_demo(stays))
    except asyncio.CancelledError:
        return STOPPED


async def _demo(stays: bool) -> int:
    logs.begin(logging.ERROR)
    console = Console(soft_wrap=True)
    me = asyncio.current_task()
    assert me is not None
    _on_signals(me.cancel)  # whatever ends it, no process and no folder stays behind
    home = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    try:
        async with _hospital(home, console, stays) as hospital:
            ok = await _show(hospital, console)
            if stays:
                console.print("\nNow something goes wrong on purpose:")
                await _trouble(hospital)
                house = hospital.tenancy.house
                await house.quality.look()  # both are done from time to time, and nobody waits for that here
                await house.sealing.seal()
                console.print(
                    f"\nIt goes on: Sectra at {hospital.sectra.front.url}/ , gateway at {hospital.url}"
                )
                console.print(
                    f"There is something to look after: {demo_troubles.TOLD};"
                    f" {demo_past.TOLD}, and {demo_shadow.TOLD}."
                )
                console.print(f"What is changed in {home}/gateway.yaml is taken up within some seconds.")
                console.print(
                    f"The console is at {hospital.url}/ ; token: {hospital.token}   (stop with Ctrl-C)"
                )
                stopped = asyncio.Event()
                _on_signals(stopped.set)
                await stopped.wait()
            return 0 if ok else FAILED
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _on_signals(act: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, act)


@asynccontextmanager
async def _hospital(home: Path, console: Console, stays: bool) -> AsyncIterator[Hospital]:
    async with AsyncExitStack() as stack:
        states = SectraState(), ArchiveState(), MilvueState()
        urls = []
        peers = (
            sectra.make_app(states[0]),
            archive.make_app(states[1]),
            milvue.make_app(states[2]),
            ia_app.make_app(),
            milvue.make_app(demo_shadow.candidate()),
        )
        for app in peers:
            runner, port = await open_peer(app)
            stack.push_async_callback(runner.cleanup)
            urls.append(f"http://127.0.0.1:{port}")
        token = secrets.token_urlsafe(16)
        write = partial(_configure, home, urls, token, states[2].token, _free_port())
        revisions = [write()]
        if stays:
            ris = demo_troubles.DESTINATIONS.format(port=_free_port())  # where nobody listens
            tried = demo_shadow.ADAPTERS.format(milvue=urls[4], milvue_token=states[2].token)
            revisions.append(write(ris, demo_troubles.DEPARTMENTS, tried, demo_shadow.NAME))
        settings = revisions[-1]
        console.print(
            f"Sectra     {urls[0]}\narchive    {urls[1]}\nMilvue     {urls[2]}\nnuclei     {urls[3]}",
            highlight=False,
        )
        url = await stack.enter_async_context(serve(settings.data_dir, fast=True))
        await prepare(settings, url)
        lasting = await stack.enter_async_context(lay_lasting(settings, url))
        tenancy = await Tenancy.begin(settings, lasting, None, Systemd())
        stack.push_async_callback(tenancy.end)
        house, store = tenancy.house, lasting.store
        for each in revisions[:-1]:
            await store.note_revision(each.revision, each.text, socket.gethostname(), "the demo")
        await tenancy.note("the demo")
        if stays:
            await store.remember(demo_past.make_up_weeks(_APPLICATION, date.today()))
            await house.shadowing.look()  # from here on
            await house.quality.look()
        await tenancy.open()
        await stack.enter_async_context(lasting.circuits.watching())
        await stack.enter_async_context(house.engine.working())
        await stack.enter_async_context(beside(house.sealing.run()))
        roll = Roll(store, "intake and workers", lambda: tenancy.worker)
        await stack.enter_async_context(roll.present())
        await stack.enter_async_context(beside(lasting.keeping.incoming.run()))
        port = await stack.enter_async_context(listening(tenancy.entrances, settings))
        if stays:  # by its file alone: a terminal that is closed sends the signal that else says so
            await stack.enter_async_context(
                beside(tenancy.watch(Source(home / "gateway.yaml", {}, settings)))
            )
        console.print(
            f"gateway    http://127.0.0.1:{port}  (configured by {home}/gateway.yaml)\n", highlight=False
        )
        yield Hospital(*states, tenancy, f"http://127.0.0.1:{port}", token)


def _free_port() -> int:
    """Known before the doors open: vendors are told it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _configure(
    home: Path,
    urls: list[str],
    token: str,
    milvue_token: str,
    port: int,
    destinations: str = "",
    departments: str = "",
    adapters: str = "",
    shadow: str = "",
) -> Settings:
    path = home / "gateway.yaml"
    text = _CONFIGURATION.format(
        gateway=f"http://127.0.0.1:{port}",
        port=port,
        data_dir=home / "data",
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        sectra=urls[0],
        archive=urls[1],
        milvue=urls[2],
        milvue_token=milvue_token,
        nuclei=urls[3],
        application=_APPLICATION,
        pathology=_PATHOLOGY,
        version=demo_past.VERSIONS[-1],
        accepted=date.today() - timedelta(days=demo_past.ACCEPTED),
        destinations=destinations,
        departments=departments,
        adapters=adapters,
        shadow=shadow,
    )
    path.write_text(text)
    return load(path, {})


async def _show(hospital: Hospital, console: Console) -> bool:
    async with _session(hospital) as session:
        followed = [
            Followed("a user asks (create)", "slide-hand", _APPLICATION, patients.HAND.study_instance_uid),
            Followed("a slide arrives", "slide-wsi", _PATHOLOGY, None),
            Followed("a system asks (REST)", None, _APPLICATION, patients.KNEE.study_instance_uid),
        ]
        problems = await _fire(hospital, session, followed)
        if not problems:
            await _follow(hospital, session, followed, console)
            problems = [problem for asked in followed for problem in _examine(hospital, asked)]
    console.print()
    for asked in followed:
        _report(hospital, asked, console)
    for problem in problems:
        complain(problem)
    console.print("\nEverything arrived." if not problems else "\nNot everything arrived.")
    return not problems


async def _trouble(hospital: Hospital) -> None:
    troubles = demo_troubles.Troubles(
        hospital.url, hospital.sectra, hospital.archive, hospital.milvue, _APPLICATION, _PATHOLOGY
    )
    async with _session(hospital) as session:
        await troubles.make(session)


def _session(hospital: Hospital) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {hospital.token}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10))


async def _fire(hospital: Hospital, session: aiohttp.ClientSession, followed: list[Followed]) -> list[str]:
    asked, arrived, rest = followed
    problems = []
    for invocation, action in ((asked, "create"), (arrived, "newImageFiles")):
        shot = Fire.model_validate(
            {
                "url": hospital.app(invocation.application),
                "applicationId": invocation.application,
                "slideId": invocation.slide,
                "action": action,
            }
        )
        answer = await fire(hospital.sectra, shot)
        problems += [f"{invocation.title}: {complaint}" for complaint in answer.complaints]
    body = {
        "application": rest.application,
        "accession_number": patients.KNEE.accession_number,
        "patient_id": patients.KNEE.patient_id,
        "idempotency_key": "demo",
    }
    async with session.post(f"{hospital.url}/api/v1/jobs", json=body) as response:
        if response.status != 202:
            problems.append(f"{rest.title}: status {response.status}")
        else:
            rest.job = await response.json()
    return problems


async def _follow(
    hospital: Hospital, session: aiohttp.ClientSession, followed: list[Followed], console: Console
) -> None:
    began = time.monotonic()
    printed: dict[str, str] = {}
    with _progress(console) as show:
        while time.monotonic() - began < _PATIENCE and not all(asked.ended for asked in followed):
            async with session.get(f"{hospital.url}/api/v1/jobs") as response:
                jobs = (await response.json())["jobs"]
            for asked in followed:
                asked.job = next((job for job in jobs if _is_of(job, asked)), asked.job)
                if not console.is_terminal and printed.get(asked.title) != asked.state:
                    printed[asked.title] = asked.state
                    print(f"{time.monotonic() - began:6.2f} s  {asked.title}: {asked.state}", flush=True)
            show(followed, time.monotonic() - began)
            await asyncio.sleep(0.05)


def _is_of(job: dict[str, Any], asked: Followed) -> bool:
    if asked.slide is not None:
        return bool(job["slide_id"] == asked.slide and job["application"] == asked.application)
    return asked.job is not None and bool(job["id"] == asked.job["id"])


class _progress:  # noqa: N801 - used like a function
    """A table that changes in place on a terminal; nothing elsewhere, where lines are printed."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=20) if console.is_terminal else None

    def __enter__(self) -> Callable[[list[Followed], float], None]:
        if self._live is not None:
            self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self, followed: list[Followed], seconds: float) -> None:
        if self._live is None:
            return
        states = ("received", "locating", "submitting", "analysing", "delivering", "done")
        table = Table(box=None, title=f"{seconds:.1f} s", title_justify="left")
        for asked in followed:
            reached = states.index(asked.state) + 1 if asked.state in states else 0
            bar = "█" * reached * 3 + "░" * (len(states) - reached) * 3
            table.add_row(asked.title, f"[cyan]{bar}[/]", asked.state)
        self._live.update(table)


def _examine(hospital: Hospital, asked: Followed) -> list[str]:
    """What should have arrived and didn't."""
    if asked.job is None:
        return [f"{asked.title}: no job came of it"]
    if asked.state != "done":
        error = asked.job.get("error") or {}
        return [f"{asked.title}: the job is {asked.state}: {error.get('message', 'it took too long')}"]
    problems = []
    if asked.study is not None and not _stored(hospital, asked):
        problems.append(f"{asked.title}: no result object in the archive")
    if asked.slide is not None:
        results = hospital.sectra.list_results(asked.application, asked.slide)
        if len(results) != 1 or "queued" in results[0]["displayResult"]:
            problems.append(f"{asked.title}: not one final result on the slide, but {len(results)}")
    return problems


def _stored(hospital: Hospital, asked: Followed) -> int:
    stored = [hospital.archive.instances[uid] for uid in hospital.archive.stored]
    return sum(1 for instance in stored if str(instance.header.StudyInstanceUID) == asked.study)


def _report(hospital: Hospital, asked: Followed, console: Console) -> None:
    console.print(f"{asked.title}: {asked.state}", style="bold")
    if asked.job is not None:
        proof = asked.job["proof"]
        counts = ", ".join(f"{key} {value}" for key, value in proof.items() if value is not None)
        console.print(f"  job {asked.job['id']}: {counts}", highlight=False)
    if asked.slide is not None:
        for result in hospital.sectra.list_results(asked.application, asked.slide):
            shown = ", ".join(f"{key}: {value}" for key, value in result["displayProperties"].items())
            console.print(
                f"  on the slide {asked.slide}: “{result['displayResult']}” ({shown})", highlight=False
            )
    if asked.study is not None:
        console.print(f"  in the archive: {_stored(hospital, asked)} result objects", highlight=False)
