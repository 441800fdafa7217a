"""dcmtk's programs as peers, on loopback; each dies with the thread that started it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.peers.ports import free_port

LOCAL = "127.0.0.1"


def send(
    port: int, files: Sequence[Path], *, calling: str, called: str, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """storescu in one association; its words tell what we answered."""
    command = [
        "storescu",
        "-v",
        "-aet",
        calling,
        "-aec",
        called,
        *options,
        LOCAL,
        str(port),
        *map(str, files),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment())


@contextmanager
def archive(
    folder: Path, aet: str, peers: dict[str, tuple[str, int]], options: Sequence[str] = ()
) -> Iterator[int]:
    """dcmqrscp, which knows no storage commitment. `peers`: AE title → host and port."""
    storage = folder / "storage"
    storage.mkdir(parents=True)
    port = free_port()
    known = "\n".join(
        f"{name.lower()} = ({name}, {host}, {number})" for name, (host, number) in peers.items()
    )
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{known}\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{aet} {storage} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with _running(["dcmqrscp", *options, "-c", str(folder / "dcmqrscp.cfg")], port):
        yield port


@contextmanager
def receiver(folder: Path, aet: str = "STORESCP", options: Sequence[str] = ()) -> Iterator[int]:
    """storescp, which can store and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with _running(["storescp", "-od", str(folder), "-aet", aet, *options, str(port)], port):
        yield port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection((LOCAL, port), 1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} doesn't start") from None
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait(10)


def environment() -> dict[str, str]:
    """Nagle's algorithm and delayed acknowledgements would cost 50 ms an instance. pynetdicom brings programs
    of the same names."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    others = [folder for folder in path if Path(folder) != Path(sys.prefix) / "bin"]
    return {**os.environ, "TCP_NODELAY": "1", "PATH": os.pathsep.join(others)}
