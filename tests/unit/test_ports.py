"""A port that a test was given can't be taken by another test's connections, nor given to another test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.peers.ports import free_port

TAKE = "from tests.peers.ports import free_port; print(*[free_port() for _ in range(200)])"


def test_a_port_is_given_once_and_no_connection_comes_from_it() -> None:
    mine = {free_port() for _ in range(200)}
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", TAKE], cwd=root, capture_output=True, check=True, text=True)
    others = {int(word) for word in told.stdout.split()}
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(mine) == len(others) == 200
    assert not mine & others
    assert max(mine | others) < lowest
