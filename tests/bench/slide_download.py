"""How fast a slide's files reach the disk: our client, the public PyPI client and curl, from one server.

Each runs in a process of its own, so that the peak of its memory is its own. The server answers from the
page cache through sendfile, so that it isn't what is measured, and its boundary is as long as real ones: a
GUID's length is searched for at twice the speed of a short word.

    python tests/bench/slide_download.py [--mib 1024] [--folder /tmp] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

FILES = 4
BOUNDARY = "a4cde309-f2f8-491b-b08d-94c84872a89f"
TARGETS = {"times the PyPI client": 5.0, "of curl": 0.9, "MiB at most": 150.0}


def serve(listener: socket.socket, file: Path, size: int) -> None:
    """One multipart answer per connection, with its length."""
    heads = [
        f'\r\n--{BOUNDARY}\r\nContent-Disposition: attachment; filename="{number}.dcm"\r\n'
        "Content-Type: application/dicom\r\n\r\n".encode()
        for number in range(FILES)
    ]
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    info = b'{"apiVersion": "1.10", "softwareVersion": "4.2"}'
    length = sum(map(len, heads)) + FILES * size + len(tail)
    while True:
        connection, _ = listener.accept()
        with connection, file.open("rb") as source:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            if b"/info " in request.split(b"\r\n")[0]:
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(info), info)
                )
                continue
            connection.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary={BOUNDARY}\r\n"
                f"Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()
            )
            for head in heads:
                connection.sendall(head)
                sent = 0
                while sent < size:
                    sent += os.sendfile(connection.fileno(), source.fileno(), sent, size - sent)
            connection.sendall(tail)


def ours(url: str, folder: Path) -> None:
    import aiohttp
    import uvloop

    from gateway.buffers import keep_buffers
    from gateway.sectra.client import SectraClient

    keep_buffers()  # as the daemon does

    async def download() -> None:
        async with aiohttp.ClientSession() as session:
            client = SectraClient(session, url, "token", software_version="bench")
            began = time.perf_counter(), time.process_time()
            await client.download("slide", folder)
            print(time.perf_counter() - began[0], time.process_time() - began[1])

    uvloop.run(download())


def pypi(url: str, folder: Path) -> None:
    from sectra_client.client import SectraClient

    client = SectraClient(url, "token", _allow_http=True)
    began = time.perf_counter(), time.process_time()
    client.download_slide_files("slide", folder)
    print(time.perf_counter() - began[0], time.process_time() - began[1])


def curl(url: str, folder: Path) -> None:
    wanted = ["-o", str(folder / "body"), f"{url}/slides/slide/files"]
    os.execvp("curl", ["curl", "-sf", "-w", "%{time_total}", *wanted])


RUNNERS = {"ours": ours, "curl": curl, "pypi": pypi}


def measure(name: str, url: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of the download alone, and of a processor, as the process tells them; its peak of MiB. Of curl,
    which tells only the first, the processor's of all it does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, __file__, "--as", name, "--url", url, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed with {process.returncode}")
    seconds, *processor = map(float, told.split())
    return seconds, (processor or [usage.ru_utime + usage.ru_stime])[0], usage.ru_maxrss / 1024


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--mib", type=int, default=1024)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked.add_argument("--as", dest="name", choices=RUNNERS)
    asked.add_argument("--url")
    given = asked.parse_args()
    if given.name:
        RUNNERS[given.name](given.url, given.folder)
        return

    size = given.mib * 1024 * 1024 // FILES
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        source = Path(scratch) / "source"
        with source.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        listener = socket.create_server(("127.0.0.1", 0))
        server = os.fork()
        if server == 0:
            serve(listener, source, size)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            report(url, Path(scratch) / "out", given.mib, given.rounds)
        finally:
            os.kill(server, 9)
            os.waitpid(server, 0)


def report(url: str, out: Path, mib: int, rounds: int) -> None:
    """Neighbours in time are compared, since what else the machine does changes from minute to minute."""
    took: dict[str, list[float]] = {name: [] for name in RUNNERS}
    used: dict[str, list[float]] = {name: [] for name in RUNNERS}
    peak = 0.0
    for turn in range(rounds):
        for name in RUNNERS:
            if name == "pypi" and turn:
                continue  # it is slow, and its spread doesn't matter
            seconds, processor, memory = measure(name, url, out)
            took[name].append(seconds)
            used[name].append(processor)
            peak = max(peak, memory) if name == "ours" else peak
            speed = f"{seconds:7.2f} s {mib / seconds:6.0f} MiB/s"
            print(f"{name:5} {speed} {processor:6.2f} s of processor {memory:6.0f} MiB peak", flush=True)
    got = (took["pypi"][0] / median(took["ours"]), _beside_curl(took), peak)
    for (what, target), value in zip(TARGETS.items(), got, strict=True):
        print(f"ours: {value:.2f} {what} (target {target})")
    print(f"by processor: {_beside_curl(used):.2f} of curl")


def _beside_curl(told: dict[str, list[float]]) -> float:
    return median(curl / ours for curl, ours in zip(told["curl"], told["ours"], strict=True))


if __name__ == "__main__":
    main()
