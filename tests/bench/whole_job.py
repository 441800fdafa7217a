"""What a whole job costs the gateway, from a click to the result on the slide and in the archive, against
peers that answer at once: a simulated Sectra, archive and Milvue and a PostgreSQL, each a process of its own.

    cpu     jobs one after another: CPU of the gateway and its children, for one job
    pace    jobs clicked all at once, with one process and then with two on one database

`--beside`: the same with the gateway of another worktree, taking turns with ours.

    python -m tests.bench.whole_job [--jobs 40] [--rounds 3] [--beside FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import psycopg
import yaml
from cryptography.fernet import Fernet

from gateway.embedded.server import serve
from gateway.simulate.milvue import TOKEN
from tests.bench.cpu import cpu_of
from tests.bench.create import free_port, running
from tests.peers.dicom_samples import encode, make_study

HERE = Path(__file__).parents[2]
APPLICATION = "bench"
BATCH = 5  # jobs between two looks at the CPU, whose clock ticks every 10 ms
PATIENCE = 300.0
TARGETS = "targets: < 60 ms of CPU at the median; at least 10 jobs/s; two processes at least 1.70 of one"


class Hospital:
    """The peers, and the studies and slides that they have."""

    def __init__(self, http: aiohttp.ClientSession, stack: ExitStack) -> None:
        self._http = http
        self.peers: dict[str, str] = {}
        for kind in ("sectra", "archive", "milvue"):
            port = free_port()
            stack.enter_context(running("-m", "gateway", "simulate", kind, "--port", str(port), port=port))
            self.peers[kind] = f"http://127.0.0.1:{port}"

    async def open(self) -> None:
        await self._control("milvue", "behaviour", {"delay": 0})

    async def _control(self, peer: str, path: str, body: object) -> None:
        url = f"{self.peers[peer]}/control/{path}"
        async with self._http.put(url, json=body, raise_for_status=True) as answer:
            await answer.read()

    async def admit(self, count: int) -> list[str]:
        return [await self._admit() for _ in range(count)]

    async def _admit(self) -> str:
        files = list(make_study(2, size=64))
        boundary, slide = uuid4().hex, f"slide-{uuid4().hex[:12]}"
        begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(begin + encode(each) + b"\r\n" for each in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        url = f"{self.peers['archive']}/dicom-web/studies"
        async with self._http.post(url, data=body, headers={"Content-Type": kind}) as answer:
            answer.raise_for_status()
        names = {
            "accession_number": files[0].AccessionNumber,
            "study_instance_uid": files[0].StudyInstanceUID,
        }
        await self._control("sectra", "slides", {"id": slide, **names})
        return slide

    async def click(self, gateway: str, slide: str) -> None:
        shot = {"url": f"{gateway}/ia/{APPLICATION}", "applicationId": APPLICATION, "slideId": slide}
        url = f"{self.peers['sectra']}/control/fire"
        async with self._http.post(url, json=shot, raise_for_status=True) as answer:
            said = await answer.json()
        if said["status"] != 200:
            raise SystemExit(f"a click was refused: {said}")


class Side:
    """One version of the gateway, with a database of its own."""

    def __init__(self, name: str, tree: Path, folder: Path, url: str, hospital: Hospital) -> None:
        self.name = name
        self._tree = tree
        self._folder = folder
        self._url = url
        self._hospital = hospital
        self._key = Fernet.generate_key().decode()
        self._clicked = 0

    @contextmanager
    def replicas(self, count: int) -> Iterator[list[tuple[str, int]]]:
        """Where each listens, and the number of its process."""
        with ExitStack() as stack:
            started = []
            for number in range(count):
                port = free_port()
                path = self._folder / f"{number}.yaml"
                path.write_text(yaml.safe_dump(self._configure(port)))
                command = ("-m", "gateway", "run", "--config", str(path))
                pid = stack.enter_context(running(*command, port=port, tree=self._tree))
                started.append((f"http://127.0.0.1:{port}", pid))
            yield started

    async def cost(self, gateway: str, pid: int, jobs: int) -> list[float]:
        """Milliseconds of CPU for a job, of each batch."""
        told = []
        for _ in range(max(1, jobs // BATCH)):
            slides = await self._hospital.admit(BATCH)
            before = await asyncio.to_thread(cpu_of, pid)
            for slide in slides:
                await self.work_off([gateway], [slide])
            told.append(1e3 * (await asyncio.to_thread(cpu_of, pid) - before) / BATCH)
        return told

    async def pace(self, gateways: Sequence[str], jobs: int) -> float:
        slides = await self._hospital.admit(jobs)
        began = time.perf_counter()
        await self.work_off(gateways, slides)
        return jobs / (time.perf_counter() - began)

    async def work_off(self, gateways: Sequence[str], slides: Sequence[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for number, slide in enumerate(slides):
                group.create_task(self._hospital.click(gateways[number % len(gateways)], slide))
        self._clicked += len(slides)
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            async with asyncio.timeout(PATIENCE):
                while await self._count(connection, "done") < self._clicked:
                    if await self._count(connection, "held", "failed", "cancelled"):
                        raise SystemExit("not every job was done")
                    await asyncio.sleep(0.02)

    async def _count(self, connection: psycopg.AsyncConnection, *states: str) -> int:
        counted = await connection.execute("SELECT count(*) FROM jobs WHERE state = ANY(%s)", (list(states),))
        row = await counted.fetchone()
        return int(row[0]) if row else 0

    def _configure(self, port: int) -> dict[str, object]:
        peers = self._hospital.peers
        application = {
            "display_name": "Bench",
            "manufacturer": "Bench",
            "adapter": "milvue",
            "archives": ["vna"],
            "deliver": ["sectra", "vna"],
        }
        milvue = {"kind": "milvue", "url": peers["milvue"], "token": TOKEN, "commands": ["smarturgences"]}
        return {
            "listen": {"host": "127.0.0.1", "port": port},
            "database_url": self._url,
            "data_dir": str(self._folder / "data"),
            "secret_keys": [self._key],
            "sectra": {"open": True, "servers": {"main": {"callback_urls": [f"{peers['sectra']}/"]}}},
            "archives": {"vna": {"kind": "dicomweb", "url": f"{peers['archive']}/dicom-web"}},
            "destinations": {"vna": {"kind": "stow", "archive": "vna"}},
            "adapters": {"milvue": {**milvue, "first_poll": "10ms"}},
            "departments": {"bench": {"contact": "it@hospital", "applications": {APPLICATION: application}}},
        }


async def measure(trees: dict[str, Path], rounds: int, jobs: int) -> dict[str, dict[str, list[float]]]:
    told: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "one": [], "two": []} for name in trees}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as peers:
        Path(folder).chmod(0o755)
        async with AsyncExitStack() as stack:
            hospital = Hospital(await stack.enter_async_context(aiohttp.ClientSession()), peers)
            await hospital.open()
            sides = []
            for name, tree in trees.items():
                place = Path(folder) / name
                place.mkdir()
                url = await stack.enter_async_context(serve(place / "database"))
                sides.append(Side(name, tree, place, url, hospital))
            for count, turns in ((1, rounds), (2, rounds)):
                with ExitStack() as started:
                    running_now = [(side, started.enter_context(side.replicas(count))) for side in sides]
                    for turn in range(turns + 1):  # the first only warms up
                        for side, replicas in running_now:
                            urls = [url for url, _ in replicas]
                            if count == 1:
                                costs = await side.cost(*replicas[0], jobs if turn else BATCH)
                                told[side.name]["cpu"] += costs if turn else []
                            rate = await side.pace(urls, jobs if turn else 4 * BATCH)
                            told[side.name]["one" if count == 1 else "two"] += [rate] if turn else []
    return told


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--jobs", type=int, default=40)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--beside", type=Path)
    given = asked.parse_args()
    trees = {"before": given.beside.resolve()} if given.beside else {}
    told = asyncio.run(measure({**trees, "ours": HERE}, given.rounds, given.jobs))
    for name, figures in told.items():
        cpu, one, two = (statistics.median(figures[each]) for each in ("cpu", "one", "two"))
        print(
            f"{name:<7} {cpu:6.1f} ms of CPU for a job   {one:5.1f} jobs/s in one process   {two:5.1f} in two"
            f"   two / one {two / one:4.2f}"
        )
    if given.beside:
        cpu, one = (
            statistics.median(told["ours"][each]) / statistics.median(told["before"][each])
            for each in ("cpu", "one")
        )
        print(f"ours / before: {cpu:4.2f} of its CPU, {one:4.2f} of its pace")
    print(TARGETS)


if __name__ == "__main__":
    main()
