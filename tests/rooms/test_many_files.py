"""DICOM in a process that has more files open than `select` can count."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.archives.dimse import DimseArchive
from gateway.dicom.peer import DimsePeer
from gateway.dicom.staging import Staging
from tests.peers import dcmtk
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, PATIENT, service

BEYOND = 1100


@pytest.fixture
def crowd() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, BEYOND + 500), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(BEYOND)]
    yield
    for each in opened:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowd")
async def test_a_peer_is_called_and_heard_all_the_same(tmp_path: Path) -> None:
    with dcmtk.receiver(tmp_path / "theirs") as port:
        peer = DimsePeer("archive pacs", "127.0.0.1", port, "STORESCP", AET, PATIENT)
        await DimseArchive("pacs", peer, Staging(tmp_path / "staging"), None).check()
    files = write_study(tmp_path / "study", 2)
    with service(tmp_path / "ours", None, {"STORESCU": "127.0.0.1"}) as ours:
        sent = dcmtk.send(ours.port, files, calling="STORESCU", called=AET)
        assert "Association Accepted" in sent.stderr + sent.stdout
        assert "Received Store Response" in sent.stderr + sent.stdout
