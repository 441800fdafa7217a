"""The manifests are Kubernetes', of three releases, strictly; and what they say of us is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.settings.load import load
from gateway.settings.sections import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
RELEASES = ["1.32.0", "1.35.0", "1.37.0"]
OURS = {"kustomize.config.k8s.io/v1beta1", "monitoring.coreos.com/v1"}  # not Kubernetes' own


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.rglob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            name = each.get("metadata", {}).get("name", "")
            yield f"{path.relative_to(FOLDER)} {each['kind']} {name}", each


ALL = dict(manifests())
PODS = {
    name: each["spec"]["template"]["spec"] for name, each in ALL.items() if "template" in each.get("spec", {})
}


@pytest.mark.parametrize("release", RELEASES)
def test_they_are_valid(release: str) -> None:
    for each in ALL.values():
        if each["apiVersion"] not in OURS:
            kubernetes_validate.validate(each, release, strict=True)


def test_a_wrong_one_would_be_found() -> None:
    [service, *_] = (each for each in ALL.values() if each["kind"] == "Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**service, "sepc": {}}, RELEASES[-1], strict=True)


def test_every_file_is_part_of_a_whole() -> None:
    for path in FOLDER.rglob("kustomization.yaml"):
        named = set(yaml.safe_load(path.read_text())["resources"]) - {"../../base"}
        assert named == {other.name for other in path.parent.glob("*.yaml")} - {path.name}


def test_every_patch_finds_what_it_changes() -> None:
    for path in (FOLDER / "overlays").rglob("kustomization.yaml"):
        for patch in yaml.safe_load(path.read_text())["patches"]:
            target = patch["target"]
            found = [
                each
                for each in ALL.values()
                if each["kind"] == target["kind"] and target.get("name") in (None, each["metadata"]["name"])
            ]
            assert found, target
            operations = yaml.safe_load(patch["patch"])
            for operation in operations if isinstance(operations, list) else []:
                for each in found:
                    here: Any = each
                    for step in operation["path"].strip("/").split("/"):
                        here = here[step]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The configuration of the ConfigMap, its secrets where the pods have them."""
    [configuration] = (each for each in ALL.values() if each["kind"] == "ConfigMap")
    text: str = configuration["data"]["gateway.yaml"]
    words = {
        "database_url": "postgresql://gateway@db/gateway",
        "key": CliRunner().invoke(app, ["key"]).stdout,
        "seal_key": CliRunner().invoke(app, ["key", "--seal"]).stdout,
    }
    for name in re.findall(r"\$\{file:/run/secrets/gateway/(\w+)\}", text):
        (tmp_path / name).write_text(words.get(name, "secret"))
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("/run/secrets/gateway", str(tmp_path)))
    return load(path, {})


def test_the_configuration_is_ours_and_opens_the_ports_that_are_named(settings: Settings) -> None:
    assert settings.monitor is not None and settings.dimse is not None
    open_ = {"web": settings.listen.port, "monitor": settings.monitor.port, "dimse": settings.dimse.port}
    for pod in PODS.values():
        for port in (port for each in pod["containers"] for port in each.get("ports", [])):
            assert open_[port["name"]] == port["containerPort"]
    assert {settings.listen.host, settings.monitor.host, settings.dimse.host} == {"0.0.0.0"}
    assert not settings.migrate_on_start, "the Job does that"


def test_pods_have_what_their_configuration_names(settings: Settings) -> None:
    for pod in PODS.values():
        [container] = pod["containers"]
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        places = set(mounted.values())
        assert {str(settings.data_dir), "/run/secrets/gateway", "/tmp"} <= places
        assert {each["name"] for each in container["volumeMounts"]} == {
            each["name"] for each in pod["volumes"]
        }
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert Path(environment["GATEWAY_CONFIG"]).parent.as_posix() in places


def test_what_is_said_of_a_bucket_in_place_of_the_volume_changes_the_volume() -> None:
    said = (FOLDER / "overlays" / "replicas" / "kustomization.yaml").read_text()
    [patch] = re.findall(r"^#   - (\{.*\})$", said, re.MULTILINE)
    operation = yaml.safe_load(patch)
    for pod in PODS.values():
        assert pod["volumes"][int(operation["path"].rpartition("/")[2])]["name"] == "spool"
    assert operation["value"]["name"] == "spool"


def test_every_command_is_ours() -> None:
    for pod in PODS.values():
        [container] = pod["containers"]
        assert CliRunner().invoke(app, [*container["args"], "--help"]).exit_code == 0


def test_no_pod_may_do_more_than_it_must() -> None:
    for pod in PODS.values():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and "runAsUser" not in pod["securityContext"]
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert not pod["automountServiceAccountToken"]


def test_a_pod_has_longer_to_end_than_we_need() -> None:
    for name, pod in PODS.items():
        if "Deployment" in name:
            [container] = pod["containers"]
            waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]  # which counts as well
            assert pod["terminationGracePeriodSeconds"] > 20 + waits


def labels_of_pods() -> list[dict[str, str]]:
    """As kustomize makes them."""
    base = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())
    added = {
        name: value
        for each in base["labels"]
        if each.get("includeTemplates")
        for name, value in each["pairs"].items()
    }
    templates = [each["spec"]["template"] for each in ALL.values() if "template" in each.get("spec", {})]
    return [{**template["metadata"]["labels"], **added} for template in templates]


def test_what_is_meant_for_pods_finds_them() -> None:
    pods = labels_of_pods()
    wanted: dict[str, dict[str, str]] = {}
    for name, each in ALL.items():
        spec = each.get("spec", {})
        selector = spec.get("selector") if each["kind"] == "Service" else None
        if each["kind"] in ("Deployment", "PodDisruptionBudget") and "selector" in spec:
            selector = spec["selector"]["matchLabels"]
        if each["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        if selector is not None:
            wanted[name] = selector
    assert len(wanted) >= 8
    for name, selector in wanted.items():
        found = [pod for pod in pods if selector.items() <= pod.items()]
        assert found, name
        if "NetworkPolicy" in name:
            assert len(found) == len(pods), "none is left open"


def test_what_is_watched_is_a_service_of_ours() -> None:
    [watched] = (each for each in ALL.values() if each["kind"] == "ServiceMonitor")
    selector = watched["spec"]["selector"]["matchLabels"]
    ports = [
        port["name"]
        for each in ALL.values()
        if each["kind"] == "Service" and selector.items() <= each["metadata"].get("labels", {}).items()
        for port in each["spec"]["ports"]
    ]
    assert ports == [endpoint["port"] for endpoint in watched["spec"]["endpoints"]]
