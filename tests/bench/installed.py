"""Processes as they are where the gateway is installed.

The image and deploy/systemd compile every module. Where Python is told to keep none that it has compiled, as
some machines of developers are, each start compiles them anew, and a peak of memory is the compiler's.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def compiled(*loading: Sequence[str]) -> Iterator[dict[str, str]]:
    """The environment of processes that find compiled what these commands load."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in loading:
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)
        yield environment


def peak() -> float:
    """MiB of this process. What getrusage tells begins with the memory of whoever started it."""
    told = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(told.split()[0]) / 1024
