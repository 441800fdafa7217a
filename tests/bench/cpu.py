"""What a process and all its children have used of the processor."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds, those of children that have ended included."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            numbers = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        child = int(stat.parent.name)
        parents[child] = int(numbers[1])
        used[child] = sum(map(int, numbers[11:15])) / _TICKS
    return sum(seconds for child, seconds in used.items() if _descends(child, pid, parents))


def _descends(child: int, pid: int, parents: dict[int, int]) -> bool:
    while child != pid:
        if child not in parents:
            return False
        child = parents[child]
    return True
