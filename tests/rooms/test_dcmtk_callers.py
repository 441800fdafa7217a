"""dcmtk's other programs at our storage service: what it takes of them, and how it refuses the rest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import dcmtk
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, Service, by_uid, head, service

LOCAL = "127.0.0.1"
TRAUMA = {"trauma": {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA"}}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Service]:
    peers = {"MODALITY": LOCAL, "ARCHIVE": LOCAL}
    with service(tmp_path / "data", None, peers, applications=TRAUMA) as running:
        yield running


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=dcmtk.environment())


def kept(here: Service) -> list[Path]:
    return sorted((here.settings.data_dir / "incoming").glob("trauma/*/*.dcm"))


def test_a_folder_by_dcmsend(here, tmp_path):
    paths = write_study(tmp_path / "study", 5, series=2)
    sent = call(
        *("dcmsend", "-v", "-aet", "MODALITY", "-aec", "TRAUMA"),
        *("--scan-directories", LOCAL, str(here.port), str(tmp_path / "study")),
    )
    assert sent.returncode == 0, sent.stderr
    assert by_uid(kept(here)) == by_uid(paths)


@pytest.mark.parametrize(
    "offer", ["--propose-lossless", "--propose-jpeg8", "--propose-j2k-lossless", "--propose-rle"]
)
def test_what_is_offered_compressed_or_plain_comes_plain(here, tmp_path, offer):
    """In one context, the compressed syntax first: who holds uncompressed images can't send them in that."""
    paths = write_study(tmp_path / "study", 2)
    sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=[offer, "--combine"])
    assert sent.returncode == 0, sent.stdout
    assert by_uid(kept(here)) == by_uid(paths)


def test_what_is_offered_compressed_alone_comes_compressed(here, tmp_path):
    (path,) = write_study(tmp_path / "study", 1)
    rle = tmp_path / "rle.dcm"
    assert call("dcmcrle", str(path), str(rle)).returncode == 0
    sent = dcmtk.send(here.port, [rle], calling="MODALITY", called="TRAUMA", options=["--propose-rle"])
    assert sent.returncode == 0, sent.stdout
    assert [str(head(each).file_meta.TransferSyntaxUID) for each in kept(here)] == ["1.2.840.10008.1.2.5"]


def test_a_move_to_us_that_nobody_asked_for(here, tmp_path):
    """The archive is a known peer, and yet nothing of it is kept; who moves it hears of the failures."""
    paths = write_study(tmp_path / "study", 3)
    study = str(head(paths[0]).StudyInstanceUID)
    with dcmtk.archive(tmp_path / "archive", "ARCHIVE", {AET: (LOCAL, here.port)}) as port:
        assert dcmtk.send(port, paths, calling="ANYBODY", called="ARCHIVE").returncode == 0
        moved = call(
            *("movescu", "-d", "-S", "-aet", AET, "-aec", "ARCHIVE", "-aem", AET),
            *("-k", "0008,0052=STUDY", "-k", f"0020,000d={study}", LOCAL, str(port)),
        )
    told = moved.stdout + moved.stderr
    assert "Failed Suboperations          : 3" in told, told
    assert kept(here) == [] and here.unplaced == []


@pytest.mark.parametrize(
    "program",
    [
        ("findscu", "-S", "-k", "0008,0052=STUDY", "-k", "0020,000d="),
        ("getscu", "-S", "-k", "0008,0052=STUDY"),
    ],
)
def test_we_are_no_archive(here, program):
    asked = call(program[0], "-aet", "MODALITY", "-aec", AET, *program[1:], LOCAL, str(here.port))
    assert asked.returncode != 0
    assert "Presentation Contexts" in asked.stdout + asked.stderr
    assert call("echoscu", "-aet", "MODALITY", "-aec", AET, LOCAL, str(here.port)).returncode == 0
