"""The suite that every adapter runs catches each mistake that it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

MISTAKES = {
    "TestSendsAgain": "test_what_arrived_is_not_sent_again",
    "TestSleeps": "test_a_broken_vendor_is_tried_again[find-503]",
    "TestTakesWhatWasCut": "test_a_cut_result_is_not_whole",
    "TestKnowsNoLimit": "test_a_result_has_a_limit",
    "TestTakesForbiddenForEmpty": "test_no_result_is_told_from_none[forbidden]",
    "TestTakesAnErrorForEmpty": "test_no_result_is_told_from_none[error]",
    "TestAcknowledgesTooMuch": "test_what_is_acknowledged_has_arrived",
    "TestRemembers": "test_nothing_is_remembered",
}


def test_each_mistake_is_caught(tmp_path: Path) -> None:
    mutants = Path(__file__).with_name("mutants.py")
    wanted = [f"{mutants}::{kind}::{test}" for kind, test in MISTAKES.items()]
    wanted += [f"{mutants}::TestNothingWrong::{test}" for test in MISTAKES.values()]
    report = tmp_path / "report.xml"
    run = [sys.executable, "-m", "pytest", *wanted, f"--junitxml={report}"]
    subprocess.run(run, capture_output=True, timeout=110)
    failed = {
        (case.attrib["classname"].rpartition(".")[2], case.attrib["name"])
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("failure") is not None
    }
    assert failed == set(MISTAKES.items())
