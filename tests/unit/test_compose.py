"""compose.yaml is Compose's, and what it and the Dockerfile say of us is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.settings.load import load
from gateway.settings.sections import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"].startswith("imaging-gateway")}
DOCKERFILE = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
IMAGE = dict(
    line.split(" ", 1)
    for line in DOCKERFILE.partition("FROM scratch")[2].splitlines()
    if line and not line.startswith("#")
)


def valid(path: Path) -> bool:
    """By Compose's own schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_it_is_valid(tmp_path: Path) -> None:
    assert valid(DEPLOY / "compose.yaml")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(yaml.safe_dump({"services": {"gateway": {**OURS["gateway"], "imgae": "x"}}}))
    assert not valid(wrong)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    words = {
        "database_password": "0123456789abcdef",
        "key": CliRunner().invoke(app, ["key"]).stdout,
        "seal_key": CliRunner().invoke(app, ["key", "--seal"]).stdout,
    }
    for name, word in words.items():
        (tmp_path / name).write_text(word)
    return tmp_path


def settings_of(name: str, secrets: Path) -> Settings:
    path = secrets / f"{name}.yaml"
    text = (DEPLOY / "compose" / f"{name}.yaml").read_text()
    path.write_text(text.replace("/run/secrets", str(secrets)))
    return load(path, {})


@pytest.mark.parametrize("name", ["gateway", "demo"])
def test_each_configuration_is_ours_and_fits(name: str, secrets: Path) -> None:
    settings = settings_of(name, secrets)
    service = OURS["gateway"]
    assert f"spool:{settings.data_dir}" in service["volumes"]
    assert settings.monitor is not None
    assert {settings.listen.host, settings.monitor.host} == {"0.0.0.0"}
    published = {port.rpartition(":")[2] for port in service["ports"]}
    assert str(settings.listen.port) in published <= set(IMAGE["EXPOSE"].split())
    database = SERVICES["database"]["environment"]
    assert settings.database_url == (
        f"postgresql://{database['POSTGRES_USER']}:0123456789abcdef@database/{database['POSTGRES_DB']}"
    )
    [job] = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"gateway:{settings.monitor.port}"]


def test_the_simulated_hospital_is_where_its_configuration_looks_for_it() -> None:
    text = (DEPLOY / "compose" / "demo.yaml").read_text()
    known = {
        (name, str(each["command"][each["command"].index("--port") + 1]))
        for name, each in OURS.items()
        if "demo" in each.get("profiles", ())
    }
    assert set(re.findall(r"http://(sectra|archive|milvue):(\d+)", text)) == known


def test_every_command_is_ours() -> None:
    commands = [[each["command"][0], "--help"] for each in OURS.values() if "command" in each]
    commands += [[*json.loads(IMAGE["CMD"]), "--help"]]
    health = json.loads(re.search(r"HEALTHCHECK .*CMD (\[.*\])", DOCKERFILE)[1])  # type: ignore[index]
    assert health[0] == json.loads(IMAGE["ENTRYPOINT"])[0] == "gateway"
    for words in (*commands, [*health[1:], "--help"]):
        assert CliRunner().invoke(app, words).exit_code == 0, words
    for name, each in OURS.items():
        if "command" in each:
            options = CliRunner().invoke(app, [each["command"][0], "--help"]).stdout
            for word in each["command"][2:]:
                assert not word.startswith("--") or word in options, (name, word)


def test_what_is_named_is_there() -> None:
    for name, each in COMPOSE["configs"].items():
        assert "content" in each or (DEPLOY / each["file"]).is_file(), name
    for service in SERVICES.values():
        assert {each["source"] for each in service.get("configs", ())} <= COMPOSE["configs"].keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        volumes = {each.partition(":")[0] for each in service.get("volumes", ())}
        assert volumes <= COMPOSE["volumes"].keys()
    for source, script in re.findall(r"^(?:COPY|RUN) (deploy/\S+)?(.*)$", DOCKERFILE, re.MULTILINE):
        assert not source or (ROOT / source).is_file(), script
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for kept in (line[1:] for line in ignored if line.startswith("!")):
        assert (ROOT / kept).exists(), kept


def test_prometheus_and_grafana_get_what_stands_in_this_folder() -> None:
    rules = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    targets = {each["target"]: each["source"] for each in SERVICES["prometheus"]["configs"]}
    assert [targets[path] for path in rules["rule_files"]] == ["alerts"]
    assert rules["scrape_configs"][0]["job_name"] == "gateway", "alerts/gateway.rules.yml asks for it"
    provided = yaml.safe_load(COMPOSE["configs"]["grafana_dashboards"]["content"])["providers"][0]
    mounted = {each["source"]: each["target"] for each in SERVICES["grafana"]["configs"]}
    assert Path(mounted["dashboard"]).parent == Path(provided["options"]["path"])


def test_nothing_of_ours_may_do_more_than_it_must() -> None:
    for each in OURS.values():
        assert each["read_only"] and each["cap_drop"] == ["ALL"]
        assert each["user"].endswith(":0") and each["security_opt"] == ["no-new-privileges:true"]
    uid, gid = IMAGE["USER"].split(":")
    assert int(uid) > 0 and gid == "0"
