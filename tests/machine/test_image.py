"""The container's image, as the Dockerfile makes it, begun as containers are: by a user that it doesn't know,
with a root that nobody can write to and no shell. No container engine is needed."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.peers import machine
from tests.peers.gateway import hospital
from tests.peers.ports import free_port

LAYS_OUT = Path(__file__).parents[2] / "deploy" / "image.sh"
SOMEBODY = 12345
MOUNTS = """
    set -e; root=$1 data=$2 configuration=$3 sockets=$4 user=$5; shift 5
    mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
    mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount --bind "$data" "$root/var/lib/gateway"; mount --bind "$configuration" "$root/etc/gateway"
    if [ -n "$sockets" ]; then mkdir "$root$sockets"; mount --bind "$sockets" "$root$sockets"; fi
    exec setpriv --no-new-privs chroot --userspec="$user:0" --groups= "$root" "$@"
"""
REFUSAL = machine.refusal()
pytestmark = pytest.mark.slow
begun = pytest.mark.skipif(
    bool(REFUSAL), reason=f"nobody may mount here ({REFUSAL}): how the image runs isn't proven"
)


def make_reachable(folder: Path) -> None:
    """pytest's folders are its own user's alone."""
    for each in (folder, *folder.parents[:3]):
        if each.owner() == folder.owner() and each != Path(tempfile.gettempdir()):
            each.chmod(each.stat().st_mode | 0o011)


class Image:
    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, folder: Path, *words: str, user: int = SOMEBODY, sockets: str = "") -> list[str]:
        """To be executed; what is configured stands in the folder."""
        data = folder / "data"
        if not data.exists():
            data.mkdir()
            data.chmod(0o770)  # its group is root's
        make_reachable(folder)
        mounted = ["unshare", "--mount", "sh", "-c", MOUNTS, "sh"]
        environment = ["/opt/gateway/bin/python", "-c", ENTER, *words]
        return [*mounted, str(self.root), str(data), str(folder), sockets, str(user), *environment]

    def run(self, folder: Path, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(folder, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout


# As the Dockerfile's ENV says.
ENTER = """
import os, sys
os.chdir("/var/lib/gateway")
os.umask(0o022)
os.execve("/opt/gateway/bin/gateway", ["gateway", *sys.argv[1:]], {
    "PATH": "/opt/gateway/bin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1",
    "GATEWAY_CONFIG": "/etc/gateway/gateway.yaml",
})
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image") / "root"
    subprocess.run([LAYS_OUT, root], check=True)
    make_reachable(root)
    yield Image(root)


def test_it_is_small_and_has_no_shell(image: Image) -> None:
    files = [path.lstat() for path in image.root.rglob("*")]
    assert sum(each.st_size for each in files if stat.S_ISREG(each.st_mode)) < 250e6
    assert {path.name for path in (image.root / "usr" / "bin").iterdir()} == {"python3.11"}
    assert not list((image.root / "usr" / "sbin").iterdir())
    assert not [each for each in files if stat.S_ISREG(each.st_mode) and each.st_mode & 0o6002]


@begun
def test_whoever_is_told_to_be_may_run_it_and_what_is_left_out_is_said(image: Image, tmp_path: Path) -> None:
    assert image.run(tmp_path, "--version")[1].startswith("gateway ")
    code, said = image.run(tmp_path, "demo")
    assert code == 1 and "imaging-gateway[reports] isn't installed here" in said
    (tmp_path / "gateway.yaml").write_text(f"data_dir: /var/lib/gateway\n{DEPARTMENT}")
    code, said = image.run(tmp_path, "check", "--offline")
    assert code == 1
    assert "database_url: there is none, and imaging-gateway[embedded] isn't installed here" in said
    assert "a job whose vendor returns findings alone will be held" in said


DEPARTMENT = """\
archives: {vna: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}}
destinations: {vna: {kind: stow, archive: vna}}
adapters: {node: {kind: dicomweb, url: "http://127.0.0.1:9/dicom-web"}}
departments:
  emergency:
    contact: it@hospital
    applications: {trauma: {display_name: Trauma, adapter: node, archives: [vna], deliver: [vna]}}
"""


@begun
async def test_a_job_is_done_in_it_and_backed_up(image: Image, tmp_path: Path, database_url: str) -> None:
    [sockets] = parse_qs(urlsplit(database_url).query)["host"]
    user = Path(sockets).stat().st_uid  # whom the tests' database lets in
    async with hospital(tmp_path, database_url) as house:
        house.configuration |= {
            "data_dir": "/var/lib/gateway",
            "monitor": {"host": "127.0.0.1", "port": free_port()},
        }
        command = [image.command(tmp_path, *words, user=user, sockets=sockets) for words in COMMANDS]
        run, alive, backup = command
        (tmp_path / "gateway.yaml").touch()
        assert (await said(alive))[0] == 1
        await house.start(program=run)
        (tmp_path / "gateway.yaml").chmod(0o644)
        patient = house.admit()
        await house.fire(patient.slide)
        await house.job_on(patient.slide, "done")
        assert house.bytes_arrived(patient) == [1] * len(patient.instances)
        assert len(house.stored_of(patient.study)) == 2
        assert await said(alive) == (0, '{"status": "alive"}\n')
        code, words = await said(backup)
        assert code == 0, words
        assert list((tmp_path / "data" / "backups").glob("*.dump"))
        assert house.gateway.process.pid is not None
        told = Path(f"/proc/{house.gateway.process.pid}/status").read_text()
        assert f"\nUid:\t{user}\t" in told and "\nCapEff:\t0000000000000000\n" in told
        assert yaml.safe_load((tmp_path / "gateway.yaml").read_text())["data_dir"] == "/var/lib/gateway"
        assert not list((image.root / "tmp").iterdir())


COMMANDS = (["run"], ["check", "--alive"], ["backup", "--out", "/var/lib/gateway/backups"])


async def said(command: list[str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    words, _ = await process.communicate()
    return process.returncode, "\n".join(
        line for line in words.decode().splitlines(True) if not line.startswith("configuration:")
    )
