"""What is made from the code and kept in deploy/ is what the code makes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.evidence import folder
from gateway.settings import reference

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_every_key_is_told() -> None:
    kept = (DEPLOY / "configuration.md").read_text()
    assert kept == reference.write() + "\n", "put there what `gateway config reference` prints"


@pytest.mark.parametrize("name", folder.KEPT)
def test_the_evidence(name: str) -> None:
    kept = (DEPLOY / "evidence" / name).read_text()
    assert kept == folder.KEPT[name](), (
        "put there what `gateway evidence --out deploy/evidence --kept` writes"
    )


def test_no_other_evidence_is_kept() -> None:
    assert {path.name for path in (DEPLOY / "evidence").iterdir()} == set(folder.KEPT)
