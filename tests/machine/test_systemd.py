"""The service as an engineer installs it: on a machine with a real systemd, without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.peers import machine as machines
from tests.peers.machine import Machine

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
REFUSAL = machines.refusal()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(REFUSAL),
        reason=f"nobody may mount here ({REFUSAL}): what systemd does with the service isn't proven",
    ),
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    subprocess.run([UNITS / "pack.sh", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def machine(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machines.machine(tmp_path_factory.mktemp("machine")) as made:
        (made.root / "packed").mkdir()
        subprocess.run(["cp", "-r", f"{packed}/.", made.root / "packed"], check=True)
        made.run("rm -rf /etc/gateway /var/lib/gateway")  # of a gateway that somebody ran on this machine
        made.run("/packed/install.sh --embedded-database")
        yield made


@pytest.fixture(scope="module")
def service(machine: Machine) -> Machine:
    machine.run("systemctl start gateway")
    return machine


def status_of(service: Machine, *names: str) -> list[str]:
    asked = " ".join(f"--property={name}" for name in names)
    told = dict(line.split("=", 1) for line in service.run(f"systemctl show gateway {asked}").splitlines())
    return [told[name] for name in names]


def test_it_is_up_when_systemd_says_so(service: Machine) -> None:
    assert json.loads(service.run("curl -sf http://127.0.0.1:8080/readyz")) == {"status": "ready"}
    [state, text] = status_of(service, "ActiveState", "StatusText")
    assert state == "active" and text.startswith("at work: configuration ")


def test_it_runs_as_nobody_special_and_sees_little(service: Machine) -> None:
    [pid] = status_of(service, "MainPID")
    told = dict(re.findall(r"^(\w+):\s*(.*)$", service.run(f"cat /proc/{pid}/status"), re.MULTILINE))
    assert int(told["Uid"].split()[0]) == int(service.run("id -u gateway")) != 0
    assert {int(told[which], 16) for which in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    sees = f"nsenter --target {pid} --mount"
    for hidden in (
        "ls /root",
        "ls /home",
        "ls /etc/gateway/credentials",
        "touch /etc/x",
        "touch /opt/gateway/x",
    ):
        code, _ = service.try_(f"{sees} setpriv --reuid gateway --regid gateway --clear-groups {hidden}")
        assert code != 0, hidden
    assert "key" not in service.run(f"tr '\\0' '\\n' < /proc/{pid}/environ").replace("KEYRING", "")


def test_a_second_installation_changes_nothing(service: Machine) -> None:
    before = status_of(service, "MainPID", "NRestarts")
    assert service.run("/packed/install.sh --embedded-database").splitlines() == ["nothing has changed"]
    assert status_of(service, "MainPID", "NRestarts") == before


def test_the_commands_have_its_configuration_and_keys(service: Machine) -> None:
    assert "configuration: /etc/gateway/gateway.yaml" in service.run("gateway jobs list")
    assert "BEGIN PUBLIC KEY" in service.run("gateway key --public")
    code, said = service.try_("setpriv --reuid nobody --clear-groups gateway jobs list")
    assert (code, said) == (2, "this reads the gateway's keys: run it as root (sudo gateway …)\n")


def test_a_reload_takes_a_changed_file_up_or_leaves_all_as_it_is(service: Machine) -> None:
    [pid, first] = status_of(service, "MainPID", "StatusText")
    service.run("echo 'log: {level: debug}' >> /etc/gateway/gateway.yaml && systemctl reload gateway")
    service.until(f"! systemctl show gateway --property=StatusText | grep -qF '{first}'")
    service.run("echo 'lgo: {}' >> /etc/gateway/gateway.yaml && systemctl reload gateway")
    service.until("systemctl show gateway --property=StatusText | grep -q 'a changed one is refused'")
    service.run("sed -i '/^lgo/d; /^log/d' /etc/gateway/gateway.yaml && systemctl reload gateway")
    service.until(f"systemctl show gateway --property=StatusText | grep -qF '{first}'")
    assert status_of(service, "MainPID", "NRestarts", "ActiveState") == [pid, "0", "active"]


def test_what_the_demo_does_can_be_done_in_there(service: Machine) -> None:
    """Everything that work needs, pictures and reports too, under the confinement of the unit."""
    units = "/etc/systemd/system"
    service.run(
        f"cp {units}/gateway.service {units}/demo.service && mkdir -p {units}/demo.service.d &&"
        r" printf '[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nStateDirectory=demo\nExecStart=\n"
        rf"ExecStart=/opt/gateway/current/bin/gateway demo\n' > {units}/demo.service.d/demo.conf &&"
        " systemctl daemon-reload && systemctl start demo"
    )
    assert "Everything arrived." in service.run("journalctl --unit demo --output cat")


def test_a_secret_is_a_file_and_no_more(service: Machine) -> None:
    """For each of its processes."""
    service.run("printf %s not-to-be-told > /etc/gateway/credentials/hook")
    alerts = 'alerts: {webhook: {url: "http://127.0.0.1:9/", token: "${credential:hook}"}}'
    service.run(f"echo '{alerts}' >> /etc/gateway/gateway.yaml && systemctl restart gateway")
    assert "webhook" in service.run("gateway config show")


def test_a_backup_is_made_while_it_runs(service: Machine) -> None:
    service.run("systemctl start gateway-backup")
    kept = service.run("stat --format '%a %U %n' /var/backups/gateway/*").splitlines()
    assert {line.rsplit(".", 1)[-1] for line in kept} >= {"json", "dump"}
    assert {line.rsplit(" ", 1)[0] for line in kept} == {"600 gateway"}
    assert "gateway-backup.timer" in service.run("systemctl list-timers --all --no-legend")


@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_killed_or_frozen_it_is_there_again(service: Machine, number: str) -> None:
    """A process that is frozen gives no sign of life."""
    drop_in = "/run/systemd/system/gateway.service.d"
    service.run(
        f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=5\\n' > {drop_in}/soon.conf"
        " && systemctl daemon-reload && systemctl restart gateway"
    )
    [pid] = status_of(service, "MainPID")
    service.run(f"kill -{number} {pid}")
    another = f"! systemctl show gateway --property=MainPID | grep -qx MainPID={pid}"
    service.until(f"systemctl is-active -q gateway && {another}")
    service.until("curl -sf http://127.0.0.1:8080/readyz")
    service.run(f"rm -r {drop_in} && systemctl daemon-reload && systemctl restart gateway")


def test_two_processes_and_a_socket(service: Machine) -> None:
    """Who calls while it begins anew waits, and is not refused."""
    service.run("systemctl stop gateway && /packed/install.sh --embedded-database --two-processes --socket")
    service.run("systemctl start gateway.socket gateway gateway-workers")
    service.run("systemctl is-active gateway gateway-workers")
    service.run(
        "systemctl restart --no-block gateway && curl -sf --max-time 60 http://127.0.0.1:8080/healthz"
    )
    assert "only workers" in service.run("systemctl show gateway-workers --property=StatusText")
    assert "only intake" in service.run("systemctl show gateway --property=StatusText")
    service.run(
        "systemctl stop gateway.socket gateway-workers gateway && /packed/install.sh --embedded-database"
    )
    code, _ = service.try_("systemctl cat gateway-workers")
    assert code != 0
    service.run("systemctl start gateway && curl -sf http://127.0.0.1:8080/readyz")


def test_a_release_that_does_not_start_makes_way_for_the_one_before(service: Machine) -> None:
    [before] = service.run("readlink /opt/gateway/current").split()
    shutil.copytree(service.root / "packed", service.root / "broken")
    [wheel] = (service.root / "broken" / "wheels").glob("imaging_gateway-*.whl")
    with ZipFile(wheel) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    parts["gateway/commands/daemon.py"] += b"\nraise SystemExit('broken')\n"
    with ZipFile(wheel, "w") as broken:
        for name, words in parts.items():
            broken.writestr(name, words)
    code, said = service.try_("/broken/install.sh --embedded-database")
    assert code == 1 and said.splitlines()[-1].endswith(f"{Path(before).name} is in use again"), said
    assert service.run("readlink /opt/gateway/current").split() == [before]
    service.run("curl -sf http://127.0.0.1:8080/readyz")


def test_nothing_of_it_is_left_running_when_it_is_stopped(service: Machine) -> None:
    service.run("systemctl stop gateway")
    assert service.try_("pgrep -u gateway")[0] == 1
    assert status_of(service, "Result") == ["success"]


def test_no_key_was_ever_said_aloud(service: Machine) -> None:
    kept = service.run("cat /etc/gateway/credentials/key").strip()
    assert len(kept) == 44
    said = service.run("journalctl --output cat --no-pager")
    assert kept not in said and "not-to-be-told" not in said
