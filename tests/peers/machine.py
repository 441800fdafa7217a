"""A machine of one's own: a real systemd, this one's files, any change to which is forgotten, no network."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.programs import PATH

PATIENCE = 120.0
# Debian's keep services that are installed from being started where only tests want them.
_IN_THE_WAY = ("usr/sbin/policy-rc.d",)


class Machine:
    def __init__(self, root: Path, first: int) -> None:
        self.root = root
        self._first = first  # its process 1

    def run(self, script: str, *, within: float = 600.0) -> str:
        """As root; what it says on both outputs. Raises if it fails."""
        code, said = self.try_(script, within=within)
        assert code == 0, f"{script}\nended with {code}:\n{said}"
        return said

    def try_(self, script: str, *, within: float = 600.0) -> tuple[int, str]:
        command = ["nsenter", "--target", str(self._first), "--all", "env", "-i", *_ENVIRONMENT]
        done = subprocess.run(
            [*command, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
        )
        return done.returncode, done.stdout

    def until(self, script: str) -> str:
        """Until it succeeds."""
        late = time.monotonic() + PATIENCE
        while True:
            code, said = self.try_(script)
            if code == 0:
                return said
            assert time.monotonic() < late, f"{script}\nnever came true:\n{said}"
            time.sleep(0.2)


_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "HOME=/root",
)


def refusal() -> str:
    """What this one says to whoever wants to mount; nothing, if it lets us. A program that isn't there, or
    anything else that fails, is no refusal."""
    for program in ("unshare", "mount"):
        assert shutil.which(program, path=PATH), f"{program} isn't installed"
    with TemporaryDirectory() as place:
        tried = ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", place]
        done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        layers = folder / "layers"
        _mount(stack, layers, "-t", "tmpfs", "-o", "size=4g", "tmpfs")
        for name in ("changes", "work"):
            (layers / name).mkdir(mode=0o755)
        root = folder / "root"
        lies = f"lowerdir=/,upperdir={layers / 'changes'},workdir={layers / 'work'}"
        _mount(stack, root, "-t", "overlay", "-o", lies, "overlay")
        for each in _IN_THE_WAY:
            (root / each).unlink(missing_ok=True)
        log = stack.enter_context((folder / "console").open("wb"))
        held = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit"]
        held += ["--private-users=no", "--private-network", "--console=pipe", "--link-journal=no"]
        process = subprocess.Popen(
            [*held, "--boot", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, process)
        made = Machine(root, _child_of(process))
        made.until("systemctl is-system-running | grep -Eq 'running|degraded'")
        yield made


def _mount(stack: ExitStack, place: Path, *what: str) -> None:
    place.mkdir()
    subprocess.run(["mount", *what, str(place)], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=False)


def _child_of(process: subprocess.Popen[bytes]) -> int:
    """The machine's process 1."""
    late = time.monotonic() + PATIENCE
    while time.monotonic() < late:
        assert process.poll() is None, f"no machine: {shlex.join(map(str, process.args))}"  # type: ignore[arg-type]
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (each / "stat").read_text().rpartition(")")[2].split()
                if int(words[1]) == process.pid and "systemd" in (each / "exe").readlink().name:
                    return int(each.name)
        time.sleep(0.1)
    raise AssertionError("the machine never began")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # asks its systemd to power off
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)
