"""What a transfer lets go of is used again by the next read, and given back to nobody meanwhile."""

from __future__ import annotations

import subprocess
import sys

_PASS_BYTES = """
import resource
from gateway.buffers import keep_buffers
keep_buffers()
def read():
    return [bytes(range(256)) * 1000 for _ in range(8)]
read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_buffers_are_used_again() -> None:
    told = subprocess.run([sys.executable, "-c", _PASS_BYTES], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 5_000  # pages; each round touches 500
