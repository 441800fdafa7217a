"""What Prometheus and Grafana are given names only what there is, and every alarm says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gateway.watch.catalogue import table

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "alerts" / "gateway.rules.yml"
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def known() -> set[str]:
    found = set(re.findall(r"^\| `(\w+)` \| (?:gauge|counter)", table(), re.MULTILINE))
    for name in re.findall(r"^\| `(\w+)` \| histogram", table(), re.MULTILINE):
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return found


def named(expressions: str) -> set[str]:
    return set(re.findall(r"\bgateway_\w+", expressions))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_the_rules_alarm_when_they_should_and_only_then() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "gateway.tests.yml"], cwd=RULES.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (RULES.parent / "gateway.tests.yml").read_text()
    for rule in rules():
        assert f"alertname: {rule['alert']}}}" in tested and f'alertname="{rule["alert"]}"}}' in tested


def test_every_metric_that_is_named_exists() -> None:
    board = json.loads((DEPLOY / "grafana" / "gateway.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [str(each.get("query")) for each in board["templating"]["list"]]
    asked += [rule["expr"] for rule in rules()]
    assert named(" ".join(asked)) <= known()


def test_every_alarm_says_what_it_means_and_what_to_do() -> None:
    sections = dict(SECTION.findall((DEPLOY / "runbook.md").read_text()))
    anchors = {rule["annotations"]["runbook_url"] for rule in rules()}
    assert anchors == {f"runbook.md#{name.lower()}" for name in sections}
    for name, words in sections.items():
        told = re.findall(r"^\*\*(.+?)\*\*", words, re.MULTILINE)
        assert told == ["Means", "Look", "Do", "A doctor may be told"], name


def test_no_panel_lies_over_another() -> None:
    panels = json.loads((DEPLOY / "grafana" / "gateway.json").read_text())["panels"]
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24
