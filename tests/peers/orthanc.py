"""A real Orthanc for as long as a test needs one.

    with orthanc(tmp_path, password="secret") as archive:
        archive.upload(paths)
        ... archive.dicomweb, archive.dicom_port, archive.aet ...

As a fixture, module- or session-scoped (each xdist worker then has its own):

    @pytest.fixture(scope="module")
    def archive(tmp_path_factory):
        with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
            yield running

It listens on loopback alone and dies with the thread that started it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.peers.ports import free_port

PROGRAM = "/usr/sbin/Orthanc"
PLUGINS = Path("/usr/share/orthanc/plugins")
USER = "gw"


@dataclass
class Orthanc:
    url: str
    dicom_port: int
    aet: str
    password: str | None
    process: subprocess.Popen[bytes]

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def auth(self) -> tuple[str, str] | None:
        return (USER, self.password) if self.password else None

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", auth=self.auth, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def upload(self, paths: Iterable[Path]) -> None:
        with requests.Session() as session:
            session.auth = self.auth
            for path in paths:
                with path.open("rb") as file:
                    session.post(f"{self.url}/instances", data=file, timeout=120).raise_for_status()

    def sop_instance_uids(self) -> set[str]:
        return {item["MainDicomTags"]["SOPInstanceUID"] for item in self.get("/instances?expand")}

    def clear(self) -> None:
        for study in self.get("/studies"):
            requests.delete(f"{self.url}/studies/{study}", auth=self.auth, timeout=30).raise_for_status()

    def kill(self) -> None:
        """As kill -9 does: no goodbye to whoever is being served."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def orthanc(
    folder: Path,
    *,
    password: str | None = None,
    aet: str = "ORTHANC",
    modalities: dict[str, tuple[str, str, int]] | None = None,
    check_called_aet: bool = False,
    plugins: tuple[str, ...] = ("libOrthancDicomWeb.so",),
    **options: object,
) -> Iterator[Orthanc]:
    """`modalities`: name → (AE title, host, port), the AEs that it knows. `options`: more of its own."""
    started = _start(folder, password, aet, modalities or {}, check_called_aet, plugins, options)
    if started is None:
        raise RuntimeError(f"Orthanc doesn't start: {(folder / 'orthanc.log').read_text()[-2000:]}")
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(10)


def _start(
    folder: Path,
    password: str | None,
    aet: str,
    modalities: dict[str, tuple[str, str, int]],
    check_called_aet: bool,
    plugins: tuple[str, ...],
    options: dict[str, object],
) -> Orthanc | None:
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "Name": aet,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": password is not None,
        "RegisteredUsers": {USER: password} if password else {},
        "DicomAet": aet,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": check_called_aet,
        "DicomModalities": {name: list(peer) for name, peer in modalities.items()},
        "SynchronousCMove": True,
        "StableAge": 1,
        "SyncStorageArea": False,
        "OverwriteInstances": False,
        "Plugins": [str((PLUGINS / plugin).resolve()) for plugin in plugins],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Ssl": False},
        **options,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", PROGRAM, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    running = Orthanc(f"http://127.0.0.1:{http_port}", dicom_port, aet, password, process)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            running.get("/system")
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return running
    process.kill()
    process.wait(10)
    return None
