"""What can be said of the service without starting it: holds on machines too that let nobody mount."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@pytest.mark.parametrize("unit", ["gateway.service", "gateway-backup.service"])
def test_next_to_nothing_is_open_to_what_runs_there(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", UNITS / unit],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-200:]


def test_the_scripts_are_well_formed() -> None:
    scripts = [UNITS / name for name in ("install.sh", "pack.sh", "gateway")]
    assert subprocess.run(["shellcheck", *scripts], check=False).returncode == 0


@pytest.mark.parametrize("drop_ins", [(), ("two-processes", "embedded-database")], ids=["alone", "with all"])
def test_systemd_understands_every_line(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    """A key that it doesn't know it passes over, and the service is less confined than one thinks."""
    folder = tmp_path / "etc" / "systemd" / "system"
    folder.mkdir(parents=True)
    for program in ("opt/gateway/current/bin/gateway", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / program)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr" / "lib" / "systemd" / "system", symlinks=True)
    for unit in UNITS.glob("*.*"):
        if unit.suffix in (".service", ".socket", ".timer"):
            shutil.copy(unit, folder)
    shutil.copy(UNITS / "gateway.service", folder / "gateway-workers.service")
    for unit_of_ours in ("gateway.service", "gateway-workers.service"):
        of_it = folder / f"{unit_of_ours}.d"
        of_it.mkdir()
        for name in drop_ins:
            for part in (UNITS / name).rglob("*.conf"):
                if part.parent.name in (name, of_it.name):
                    shutil.copy(part, of_it)
    ours = sorted(each.name for each in folder.iterdir() if each.is_file())
    assert len(ours) == 5
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *ours], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
