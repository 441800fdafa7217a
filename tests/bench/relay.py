"""How fast a study goes from an archive to a vendor, and in how much memory: our streaming relay, a bare
aiohttp relay of the same bytes, the naive way (fetch all with dicomweb-client, post all with requests), and
a mere loop over two sockets in blocks of 1 MiB, which looks at nothing: no relay whose bytes pass through
Python can be faster than that, so what it is of the naive way is the most that any may hope for here.

Each run has a process of its own, so that its peak is its own; the ways take turns, so that a busy machine
is fair to all. The archive is a real Orthanc; `--source pages` takes a server that sends the same body from
the page cache instead, so that the archive isn't what is measured.

    python -m tests.bench.relay [--gib 1 2] [--rounds 3] [--source orthanc pages] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import uvloop

from tests.bench.installed import compiled, peak

if TYPE_CHECKING:
    from gateway.archives.archive import Archive, InstanceRef
    from gateway.work.disguise import Disguise

MIB = 1024 * 1024
BOUNDARY = b"a4cde309-f2f8-491b-b08d-94c84872a89f"
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_LAST_CHUNK = b"\r\n0\r\n\r\n"
FRAMES, SIZE = 64, 512  # 16 MiB an instance
TARGETS = "targets: at least 1.0 of the bare relay, 11 times the naive way, at most 160 MiB"


async def relay_ours(source: str, study: str, target: str) -> None:
    from gateway.archives.dicomweb import DicomwebArchive

    async with aiohttp.ClientSession() as session:
        archive = DicomwebArchive("bench", source, session)
        await ship(archive, session, study, await archive.list_instances(study), target)


async def ship(
    archive: Archive,
    session: aiohttp.ClientSession,
    study: str,
    listed: Sequence[InstanceRef],
    target: str,
    disguise: Disguise | None = None,
) -> None:
    """As a job does: every instance recognised, counted and hashed on its way."""
    from gateway.dicom.multipart import Writer
    from gateway.jobs.records import InstanceRecord
    from gateway.work.shipment import Shipment

    chosen = {
        each.sop_instance_uid: InstanceRecord(each.sop_instance_uid, each.series_instance_uid)
        for each in listed
    }
    sent: list[InstanceRecord] = []

    async def on_end(records: list[InstanceRecord]) -> None:
        sent.extend(records)

    async def on_acknowledged(_uid: str) -> None:
        pass

    async def on_anew() -> None:
        pass

    shipment = Shipment(
        archive,
        study,
        chosen,
        listed,
        None,
        lambda _: None,
        on_end,
        on_acknowledged,
        on_anew,
        disguise=disguise,
    )
    writer = Writer()

    async def body() -> AsyncIterator[bytes]:
        async for instance in shipment.instances():
            yield writer.begin()
            async for chunk in instance.chunks():
                yield chunk
        yield writer.end()

    async with session.post(target, data=body(), headers={"Content-Type": writer.content_type}) as answer:
        assert answer.status == 200
    assert len(sent) == len(listed)


async def relay_bare(source: str, study: str, target: str) -> None:
    from gateway.dicom.web import ACCEPT_DICOM, READ_BUFFER

    async with aiohttp.ClientSession() as session:
        headers = {"Accept": ACCEPT_DICOM, "Accept-Encoding": "identity"}
        url = f"{source}/studies/{study}"
        async with session.get(url, headers=headers, read_bufsize=READ_BUFFER) as study_:
            headers = {"Content-Type": study_.headers["Content-Type"]}
            async with session.post(target, data=study_.content.iter_any(), headers=headers) as answer:
                assert answer.status == 200


def relay_naive(source: str, study: str, target: str) -> None:
    import requests
    from dicomweb_client.api import DICOMwebClient
    from urllib3 import encode_multipart_formdata

    datasets = DICOMwebClient(source).retrieve_study(study)
    files = {}
    for number, dataset in enumerate(datasets):
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files[f"file{number}"] = (f"{number}.dcm", buffer.getvalue(), "application/dicom")
    body, _ = encode_multipart_formdata(files)
    requests.post(target, data=body, headers={"Content-Type": "multipart/related"}, timeout=600)


def relay_sockets(source: str, study: str, target: str) -> None:
    """All that comes, chunks as they are, goes on as if it were the body."""
    come, path = _connect(source)
    gone, _ = _connect(target)
    with come, gone:
        come.sendall(
            f"GET {path}/studies/{study} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
            f"Accept: {_ACCEPT}\r\n\r\n".encode()
        )
        gone.sendall(b"POST / HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n")
        view, tail = memoryview(bytearray(MIB)), b""
        while count := come.recv_into(view):
            gone.sendall(view[:count])
            tail = (tail + bytes(view[max(0, count - 7) : count]))[-7:]
        if not tail.endswith(_LAST_CHUNK):
            gone.sendall(_LAST_CHUNK)
        assert gone.recv(MIB).startswith(b"HTTP/1.1 200")


def _connect(url: str) -> tuple[socket.socket, str]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return socket.create_connection((parts.hostname, parts.port)), parts.path


def receive(listener: socket.socket) -> None:
    """A vendor that is never the slowest: it looks only for the end of what comes."""
    buffer = bytearray(4 * MIB)
    view = memoryview(buffer)
    while True:
        connection, _ = listener.accept()
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            lower = head.lower()
            if b"expect: 100-continue" in lower:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            left = None
            if b"content-length:" in lower:
                left = int(lower.split(b"content-length:")[1].split(b"\r\n")[0]) - len(body)
            tail = body[-7:]
            while left != 0 and not (left is None and tail.endswith(_LAST_CHUNK)):
                count = connection.recv_into(view)
                if not count:
                    break
                tail = (tail + bytes(view[max(0, count - 7) : count]))[-7:]
                left = None if left is None else left - count
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def serve_pages(listener: socket.socket, files: list[Path], listing: bytes = b"[]") -> None:
    """The same body as Orthanc's, and as it sends it: without a length. Who searches is told the listing."""
    part = b"\r\n--%s\r\nContent-Type: application/dicom\r\n\r\n" % BOUNDARY
    while True:
        connection, _ = listener.accept()
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            if b"application/dicom+json" in request:
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/dicom+json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(listing), listing)
                )
                continue
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: multipart/related; "
                b'type="application/dicom"; boundary=%s\r\n\r\n' % BOUNDARY
            )
            for file in files:
                with file.open("rb") as opened:
                    connection.sendall(part)
                    connection.sendfile(opened)
            connection.sendall(b"\r\n--%s--\r\n" % BOUNDARY)


def list_pages(files: list[Path]) -> bytes:
    from pydicom import dcmread

    read = [dcmread(file, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"]) for file in files]
    return json.dumps([each.to_json_dict() for each in read]).encode()


@contextmanager
def forked(serve: Callable[..., None], *arguments: object) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            parent = os.getppid()

            def follow() -> None:
                while os.getppid() == parent:
                    time.sleep(0.5)
                os._exit(0)

            threading.Thread(target=follow, daemon=True).start()
            try:
                serve(listener, *arguments)
            finally:
                os._exit(1)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


# Imported before the clock starts, and only by those who need them: what they take is part of their peak.
LIBRARIES = {
    "ours": ("gateway.archives.dicomweb", "gateway.dicom.multipart", "gateway.work.shipment"),
    "bare": ("gateway.dicom.web",),
    "naive": ("dicomweb_client.api", "requests"),
    "sockets": (),
}
WAYS: dict[str, Callable[..., object]] = {
    "ours": relay_ours,
    "bare": relay_bare,
    "naive": relay_naive,
    "sockets": relay_sockets,
}


def begin_as_the_daemon() -> None:
    """What it has loaded, and set, before it meets a study."""
    from gateway.buffers import keep_buffers
    from gateway.dicom.reading import loaded

    keep_buffers()
    uvloop.run(loaded())


def run_way(way: str, source: str, study: str, target: str) -> None:
    for library in LIBRARIES[way]:
        importlib.import_module(library)
    if way == "ours":
        begin_as_the_daemon()
    if not source:
        return
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    if way in ("ours", "bare"):
        uvloop.run(WAYS[way](source, study, target))  # type: ignore[arg-type]
    else:
        WAYS[way](source, study, target)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "peak": peak(),
                "cpu": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
            }
        )
    )


def measure(label: str, source: str, study: str, size: float, ways: list[str], rounds: int) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float] = dict.fromkeys(ways, 0.0)
    run = [sys.executable, "-m", "tests.bench.relay", "--way"]
    loading = [[*run, way, "", "", ""] for way in ways]
    with compiled(*loading) as environment, forked(receive) as target:
        for _ in range(rounds):
            for way in ways:
                command = [*run, way, source, study, target]
                done = subprocess.run(command, check=True, capture_output=True, timeout=900, env=environment)
                said = json.loads(done.stdout)
                seconds[way].append(said["seconds"])
                cpu[way].append(said["cpu"])
                peaks[way] = max(peaks[way], said["peak"])
    for way in ways:
        median = statistics.median(seconds[way])
        print(
            f"{label:16} {size / 1024:4.1f} GiB  {way:7} {median:7.2f} s {size / median:8.0f} MiB/s "
            f"cpu {statistics.median(cpu[way]):6.2f} s  peak {peaks[way]:6.0f} MiB   "
            f"ours: {_beside(seconds, way):5.2f} × as fast, by cpu {_beside(cpu, way):5.2f}"
        )


def _beside(told: dict[str, list[float]], way: str) -> float:
    """Neighbours in time are compared, since what else the machine does changes from minute to minute."""
    return statistics.median(theirs / ours for theirs, ours in zip(told[way], told["ours"], strict=True))


def make_study(folder: Path, gib: int) -> tuple[str, list[Path]]:
    import pydicom

    from tests.peers.dicom_samples import write_study

    paths = write_study(folder, gib * 1024 * MIB // (FRAMES * SIZE * SIZE), frames=FRAMES, size=SIZE)
    return str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID), paths


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", nargs="+", choices=["orthanc", "pages"], default=["orthanc", "pages"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", nargs=4)
    options = parser.parse_args()
    if options.way:
        run_way(*options.way)
        return
    from tests.peers.orthanc import orthanc

    for gib in options.gib:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            study, paths = make_study(folder / "files", gib)
            size = sum(path.stat().st_size for path in paths) / MIB
            ways = [*WAYS] if gib == min(options.gib) else ["ours", "bare"]
            if "orthanc" in options.source:
                with orthanc(folder / "orthanc") as archive:
                    archive.upload(paths)
                    measure("from Orthanc", archive.dicomweb, study, size, ways, options.rounds)
            if "pages" in options.source:
                with forked(serve_pages, paths, list_pages(paths)) as source:
                    measure("from page cache", source, study, size, ways, options.rounds)
    print(TARGETS)


if __name__ == "__main__":
    main()
