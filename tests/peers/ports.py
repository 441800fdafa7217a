"""Ports that a test has to know before anybody listens on them, also again after a restart.

A port of the kernel's choosing doesn't do: the next connection of whoever asks may be given it too, and until
that ends nobody can listen there. These lie below the range that connections come from, and are nobody else's
for as long as this process lives, in whatever checkout the others run.
"""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: list[socket.socket] = []


def free_port() -> int:
    candidates = range(_LOWEST, int(_RANGE.read_text().split()[0]))
    for port in random.sample(candidates, len(candidates)):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # UDP: nobody here listens on it
        try:
            claim.bind(("127.0.0.1", port))
            socket.create_server(("", port)).close()
        except OSError:
            claim.close()
        else:
            _held.append(claim)
            return port
    raise RuntimeError("no port is free")


def await_port(port: int, limit: float = 15) -> None:
    """Until somebody listens there."""
    until = time.monotonic() + limit
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
