"""All that the gateway works with, each behind a line that can be disturbed, and the gateway itself."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography.fernet import Fernet

from gateway.simulate.milvue import TOKEN as MILVUE_TOKEN
from tests.peers.orthanc import USER, Orthanc, orthanc
from tests.peers.ris import Ris, ris
from tests.soak.line import Line, Speech, opened
from tests.soak.postgres import PASSWORD, Postgres, postgres
from tests.soak.replica import HERE, Replica, gateways_of, unpack_last_release

BASE = "/SectraPathologyServer/external/imageanalysis/v1"
TOKENS = {role: f"secret-of-the-{role}" for role in ("viewer", "operator", "admin")}
ARCHIVE_PASSWORD = "secret-of-the-archives"
CHEST_PASSWORD = "secret-of-a-vendor"
SECRETS = (*TOKENS.values(), ARCHIVE_PASSWORD, CHEST_PASSWORD, PASSWORD, MILVUE_TOKEN)
LEAST_FREE = 12 * 2**20
DISK = 160 * 2**20
SIMULATED = ("sectra", "cloud", "milvue", "nuclei")
_KINDS = {"sectra": "sectra", "cloud": "archive", "milvue": "milvue", "nuclei": "ia-app"}

Configuration = dict[str, Any]


@dataclass
class Hospital:
    folder: Path
    http: aiohttp.ClientSession
    lines: Mapping[str, Line]
    direct: Mapping[str, str]  # the simulated peers themselves, past their lines
    orthancs: Mapping[str, Orthanc]
    ris: Ris
    database: Postgres
    replicas: list[Replica]
    last_release: Path | None
    has_disk: bool  # data_dir is on a disk of its own, which can be filled
    secret_key: str
    is_upgraded: bool = False

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def front(self) -> Line:
        return self.lines["front"]

    @property
    def config(self) -> Path:
        return self.folder / "gateway.yaml"

    async def start(self, replica: Replica, *, clock: bool = False) -> None:
        """The last release until the upgrade has begun: it refuses the tables of the new one."""
        old = None if self.is_upgraded else self.last_release
        await replica.start(self.config, old or HERE, clock=clock)

    async def control(self, peer: str, method: str, path: str, body: object = None) -> Any:
        async with self.http.request(
            method, f"{self.direct[peer]}/control/{path}", json=body, raise_for_status=True
        ) as answer:
            return await answer.json()

    async def api(
        self,
        method: str,
        path: str,
        *,
        role: str = "operator",
        body: object = None,
        **more: Any,
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKENS[role]}", **more.pop("headers", {})}
        url = f"{self.front.url}/api/v1/{path}"
        async with self.http.request(method, url, json=body, headers=headers, **more) as answer:
            return answer.status, await answer.json()

    def fill_disk(self, leave: int) -> None:
        disk = os.statvfs(self.data_dir)
        room = disk.f_bavail * disk.f_frsize - leave
        with suppress(OSError), (self.data_dir / "fill").open("wb") as file:
            for _ in range(max(0, room) // 2**16):
                file.write(bytes(2**16))
        if leave == 0:
            with suppress(OSError), (self.data_dir / "fill").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    def empty_disk(self) -> None:
        (self.data_dir / "fill").unlink(missing_ok=True)


def configure(house: Hospital) -> Configuration:
    """As the last release understands it too."""
    lines = house.lines
    retry = {"attempts": 8, "first": "500ms", "most": "6s"}
    common = {
        "manufacturer": "Soak",
        "settle": "1s",
        "result_within": "90s",
        "retry": retry,
    }
    patience = {"connect_timeout": "3s", "read_timeout": "6s", "call_timeout": "12s"}
    polls = {"first_poll": "300ms", "slowest_poll": "2s"}
    milvue = {
        "kind": "milvue",
        "url": lines["milvue"].url,
        "token": MILVUE_TOKEN,
        "commands": ["smarturgences"],
        "sure_after": "2s",
        "max_concurrent": 6,
        **patience,
        **polls,
    }
    applications: Configuration = {
        "click": {"adapter": "milvue", "archives": ["vna"], "deliver": ["sectra", "vna"]},
        "notification": {"adapter": "milvue", "archives": ["vna"], "deliver": ["sectra", "vna"]},
        "signed": {"adapter": "milvue-signed", "archives": ["vna"], "deliver": ["sectra", "vna"]},
        "nuclei": {"adapter": "nuclei", "deliver": ["sectra"], "result_within": "4m"},
        "chest": {"adapter": "chest", "archives": ["vna"], "deliver": ["sectra", "vna"]},
        "lungs": {"adapter": "lungs", "archives": ["vna"], "deliver": ["sectra", "vna"]},
        "rest": {"adapter": "milvue", "archives": ["vna"], "deliver": ["vna", "ris"]},
        "pacs": {"adapter": "milvue", "archives": ["pacs"], "deliver": ["pacs", "ris"]},
        "cloud": {"adapter": "milvue", "archives": ["cloud"], "deliver": ["cloud", "ris"]},
        "c-store": {"adapter": "milvue", "archives": ["vna"], "deliver": ["vna", "ris"], "ae_title": "SENT"},
        "stow": {"adapter": "milvue", "archives": ["vna"], "deliver": ["vna", "ris"]},
    }
    sectra: Configuration = {
        "servers": {"main": {"callback_urls": [f"{lines['sectra'].url}/SectraPathologyServer/"]}},
        "allowed_networks": ["127.0.0.0/8"],
    }
    return {
        "public_url": house.front.url,
        "listen": {"host": "127.0.0.1", "port": 0},
        "database_url": house.database.url_at(house.lines["database"].port),
        "data_dir": str(house.data_dir),
        "least_free": LEAST_FREE if house.has_disk else 0,
        "secret_keys": [house.secret_key],
        "api_tokens": [
            {"name": role, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
            for role, token in TOKENS.items()
        ],
        "sectra": sectra,
        "archives": {
            "vna": {
                "kind": "dicomweb",
                "url": f"{lines['vna'].url}/dicom-web",
                "username": USER,
                "password": ARCHIVE_PASSWORD,
            },
            "cloud": {"kind": "dicomweb", "url": f"{lines['cloud'].url}/dicom-web"},
            "pacs": {
                "kind": "dimse",
                "host": "127.0.0.1",
                "port": lines["pacs"].port,
                "ae_title": "PACS",
            },
        },
        "dimse": {
            "host": "127.0.0.1",
            "port": 0,
            "peers": [{"ae_title": "MODALITY", "host": "127.0.0.1"}],
        },
        "destinations": {
            "vna": {"kind": "stow", "archive": "vna"},
            "cloud": {"kind": "stow", "archive": "cloud"},
            "pacs": {"kind": "c-store", "archive": "pacs"},
            "ris": {"kind": "hl7", "host": "127.0.0.1", "port": lines["ris"].port},
        },
        "adapters": {
            "milvue": milvue,
            "milvue-signed": {**milvue, "signed_url": True},
            "nuclei": {
                "kind": "sectra-ia",
                "url": f"{lines['nuclei'].url}/ia/nuclei",
                "final_when": "dense",
                "sure_after": "40s",  # longer than the app waits for us: called anew, it would run twice
                **patience,
            },
            "chest": {
                "kind": "dicomweb",
                "url": f"{lines['chest'].url}/dicom-web",
                "username": USER,
                "password": CHEST_PASSWORD,
                "quiet": "2s",
                **patience,
                **polls,
            },
            "lungs": {
                "kind": "dimse",
                "host": "127.0.0.1",
                "port": lines["lungs"].port,
                "ae_title": "LUNGS",
                "quiet": "2s",
                **patience,
                **polls,
            },
        },
        "departments": {
            "soak": {
                "contact": "it@hospital",
                "applications": {
                    name: {"display_name": f"Soak {name}", **common, **its}
                    for name, its in applications.items()
                },
            }
        },
    }


@asynccontextmanager
async def hospital(folder: Path, replicas: int, *, upgrade: bool) -> AsyncIterator[Hospital]:
    """The peers are up and the database is empty; no replica has been started."""
    async with AsyncExitStack() as stack:
        (folder / "logs").mkdir()
        data = folder / "data"
        data.mkdir()
        has_disk = stack.enter_context(_disk(data))
        gateways = [Replica(number, folder / "logs") for number in range(replicas)]
        known = {each.ae_title: (each.ae_title, "127.0.0.1", each.dicom_port) for each in gateways}
        orthancs = {
            name: await asyncio.to_thread(
                stack.enter_context,
                orthanc(
                    folder / name,
                    password=password,
                    aet=name.upper(),
                    modalities=known,
                    HttpsCACertificates="",
                    ConcurrentJobs=4,
                    DicomCheckModalityHost=False,
                    DicomAlwaysAllowStore=True,
                    DicomAlwaysAllowFind=True,
                    DicomAlwaysAllowMove=True,
                ),
            )
            for name, password in (
                ("vna", ARCHIVE_PASSWORD),
                ("pacs", None),
                ("chest", CHEST_PASSWORD),
                ("lungs", None),
            )
        }
        listener = await stack.enter_async_context(ris())
        database = await stack.enter_async_context(postgres(folder / "postgres"))
        lines = _draw_lines(orthancs, listener.port, database, gateways)
        direct = {}
        for name in SIMULATED:
            process, port = await _simulate(folder, name, lines[name].url)
            stack.push_async_callback(_end, process)
            lines[name].targets = [port]
            direct[name] = f"http://127.0.0.1:{port}"
        await stack.enter_async_context(opened(list(lines.values())))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=60, connect=30),
                connector=aiohttp.TCPConnector(limit=0, force_close=True),  # kept ones end amid a POST
            )
        )
        release = await asyncio.to_thread(unpack_last_release, folder / "last") if upgrade else None
        house = Hospital(
            folder,
            http,
            lines,
            direct,
            orthancs,
            listener,
            database,
            gateways,
            release,
            has_disk,
            Fernet.generate_key().decode(),
        )
        house.config.write_text(yaml.safe_dump(configure(house)))
        try:
            yield house
        finally:
            for replica in gateways:
                await replica.kill()
            for pid in gateways_of(folder):  # one that was just being started when all was broken off
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _draw_lines(
    orthancs: Mapping[str, Orthanc], ris_port: int, database: Postgres, replicas: list[Replica]
) -> dict[str, Line]:
    def http_port(server: Orthanc) -> int:
        return int(server.url.rpartition(":")[2])

    drawn: list[tuple[str, int, Speech]] = [
        ("vna", http_port(orthancs["vna"]), "http"),
        ("chest", http_port(orthancs["chest"]), "http"),
        ("pacs", orthancs["pacs"].dicom_port, "dicom"),
        ("lungs", orthancs["lungs"].dicom_port, "dicom"),
        ("ris", ris_port, "mllp"),
        *((name, 0, "http") for name in SIMULATED),
    ]
    lines = {name: Line(name, [port], speech) for name, port, speech in drawn}
    lines["database"] = Line("database", [database.port], "mllp", noted=False)
    lines["front"] = Line("front", [each.port for each in replicas], "http", noted=False)
    return lines


async def _simulate(folder: Path, name: str, url: str) -> tuple[asyncio.subprocess.Process, int]:
    log = folder / "logs" / f"{name}.log"
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *(sys.executable, "-m", "gateway", "simulate", _KINDS[name], "--url", url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
    async with asyncio.timeout(60):
        while " at http://" not in (told := log.read_text()):
            if process.returncode is not None:
                raise RuntimeError(f"the simulated {name} doesn't start: {told}")
            await asyncio.sleep(0.05)
    return process, int(told.splitlines()[0].rpartition(":")[2])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """A small one of its own, where we may mount; it goes with the last process that sees it."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        yield False
        return
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK}", "gateway-soak", str(folder)], capture_output=True
    )
    if made.returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run([umount, "--lazy", str(folder)], capture_output=True, check=False)
