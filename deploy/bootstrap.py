"""Makes `.venv` exactly as uv.lock says, with nothing but Python and its standard library to begin with.

Debian's Python has neither pip nor venv, so the one tool needed (uv) is fetched as a wheel of a fixed version
and checksum from the package index, and does the rest. PIP_INDEX_URL and UV_INDEX_URL name another index.
A second run with nothing changed ends at once; two at a time wait for each other.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import html
import io
import os
import platform
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
STAMP = VENV / "synced"

UV = "0.13.9"
WHEELS = {
    "x86_64": (
        f"uv-{UV}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    "aarch64": (
        f"uv-{UV}-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
}


_PROXY = (
    "Behind a proxy? Set HTTPS_PROXY, and put its authority among the machine's (update-ca-certificates)."
)


def main() -> None:
    try:
        TOOLS.mkdir(exist_ok=True)
        with (TOOLS / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            uv = TOOLS / f"uv-{UV}"
            if "--tool" in sys.argv[1:]:  # where it is, and no more
                if not uv.exists():
                    fetch(uv)
                print(uv)  # noqa: T201
                return
            wanted = fingerprint()
            if STAMP.exists() and STAMP.read_text() == wanted and (VENV / "bin" / "python").exists():
                return
            sys.stderr.write("setting up .venv (once; later runs start at once)\n")
            sync(uv)
            STAMP.write_text(wanted)
    except PermissionError as error:
        sys.exit(f"{error.filename} can't be written by this user: run make as the one who owns the folder.")


def fingerprint() -> str:
    digest = hashlib.sha256()
    for path in (ROOT / "uv.lock", ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def sync(uv: Path) -> None:
    if not uv.exists():
        fetch(uv)
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"UV_PROJECT_ENVIRONMENT": str(VENV), "UV_PYTHON_DOWNLOADS": "never"}
    if has_certificates():  # those of the hospital's own proxy are there, not among uv's
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    if not os.access(Path("~").expanduser(), os.W_OK):
        environment.setdefault("UV_CACHE_DIR", str(TOOLS / "cache"))
    python = getattr(sys, "_base_executable", sys.executable)  # a virtual environment can't grow on itself
    # Compiled once, here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each start would
    # compile all libraries anew, for seconds.
    command = [uv, "sync", "--frozen", "--all-extras", "--compile-bytecode", "--quiet", "--python", python]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:  # noqa: S603
        sys.exit("The dependencies could not be installed: what uv says is above.")


def fetch(uv: Path) -> None:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in WHEELS:
        sys.exit(f"The gateway runs on Linux on {' or '.join(WHEELS)}; this is {sys.platform} on {machine}.")
    name, checksum = WHEELS[machine]
    index = next(
        filter(None, map(os.environ.get, ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"))),
        "https://pypi.org/simple",
    )
    page, credentials = without_credentials(index.rstrip("/") + "/uv/")
    links = re.findall(r'href="([^"]+)"', download(page, credentials).decode())
    for link in map(html.unescape, links):
        url = urllib.parse.urljoin(page, link.partition("#")[0])
        if urllib.parse.unquote(url).endswith("/" + name):
            break
    else:
        sys.exit(f"The package index at {page} doesn't have {name}; PIP_INDEX_URL can name another index.")
    same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(page).netloc
    wheel = download(url, credentials if same_host else None)
    if hashlib.sha256(wheel).hexdigest() != checksum:
        sys.exit(f"{url} is not the file that was pinned: its checksum differs.")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        fresh = uv.with_suffix(".new")
        fresh.write_bytes(archive.read(f"uv-{UV}.data/scripts/uv"))
    fresh.chmod(0o755)
    fresh.replace(uv)


def download(url: str, credentials: str | None) -> bytes:
    context = ssl.create_default_context()
    if not has_certificates() and credentials is None:
        # A machine without any certificate: what is fetched is trusted for its checksum alone.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    request = urllib.request.Request(url)  # noqa: S310 - the index is whatever its user chose
    if credentials:
        request.add_unredirected_header("Authorization", credentials)
    for patience in (1, 3, None):
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310
                return bytes(answer.read())
        except (OSError, urllib.error.URLError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if patience is None or refused:
                sys.exit(f"{url} could not be fetched: {error}. {_PROXY}")
            time.sleep(patience)
    raise AssertionError


def without_credentials(url: str) -> tuple[str, str | None]:
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return url, None
    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, "Basic " + base64.b64encode(pair.encode()).decode()


def has_certificates() -> bool:
    places = ssl.get_default_verify_paths()
    return bool(places.cafile) or (bool(places.capath) and any(Path(places.capath).iterdir()))


if __name__ == "__main__":
    main()
