"""The short soak: `make soak` with a seed that is always the same. What is asserted is its model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.plan import make_plan
from tests.soak.replica import HERE

pytestmark = pytest.mark.slow


def test_a_plan_follows_from_its_seed_alone() -> None:
    plan, again = (make_plan(7, 600, 3) for _ in range(2))
    assert plan == again
    assert plan != make_plan(8, 600, 3)


@pytest.mark.timeout(1500)
def test_whatever_happens_for_three_minutes_the_gateway_keeps_its_word(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "3", "--seed", "7", "--keep", str(tmp_path)]
    soak = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=1400)
    assert soak.returncode == 0, soak.stdout[-20_000:] + soak.stderr[-5_000:]
