"""Each hazard is proven by tests that are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gateway.evidence.hazards import HAZARDS, Hazard

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda hazard: hazard.what)
def test_its_proofs_are_there(hazard: Hazard) -> None:
    assert hazard.proofs
    for proof in hazard.proofs:
        file, _, name = proof.partition("::")
        parsed = ast.parse((TESTS / file).read_text())
        found = [each for each in parsed.body if getattr(each, "name", "") == name]
        assert found, proof
        marks = [ast.unparse(mark) for mark in getattr(found[0], "decorator_list", [])]
        assert not any("skip" in mark or "xfail" in mark for mark in marks), proof
