"""A disk that fills up while something is written: it is given up in time, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.contract import Retryable
from gateway.dicom.staging import LEAST_FREE
from gateway.kit.folder import put_down
from gateway.kit.shelf import Shelf
from gateway.sectra.download import _write_all
from gateway.suite.studies import GivenStudy
from tests.peers import dcmtk
from tests.peers.dicom_samples import encode, make_study, write_study
from tests.peers.dimse import service
from tests.rooms.test_stow_door import parts, serve, stack

__all__ = ["stack"]

MIB = 2**20
TRAUMA = {"trauma": {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA"}}
Disk = Callable[[Path, int], None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Has so many free bytes, less what lies in the folder."""

    def limit(folder: Path, free: int) -> None:
        def look(_: object) -> object:
            used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return SimpleNamespace(f_bavail=max(0, free - used), f_frsize=1)

        monkeypatch.setattr(os, "statvfs", look)

    return limit


def test_an_instance_that_is_being_stored(tmp_path: Path, disk: Disk) -> None:
    data = tmp_path / "data"
    paths = write_study(tmp_path / "study", 1, size=2048)
    small = write_study(tmp_path / "small", 1)
    with service(data, None, {"MODALITY": "127.0.0.1"}, applications=TRAUMA, least_free=10 * MIB) as here:
        disk(data, 14 * MIB)
        sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=["-d"])
        assert "0xa700" in (sent.stdout + sent.stderr).lower()
        assert here.unplaced == []
        assert dcmtk.send(here.port, small, calling="MODALITY", called="TRAUMA").returncode == 0


async def test_an_upload(tmp_path: Path, stack: object, disk: Disk) -> None:
    door = await serve(tmp_path, stack, least_free=10 * MIB)
    disk(tmp_path, 14 * MIB)
    status, told = await door.post(parts(*map(encode, make_study(3, size=1024))))
    assert status == 503 and "nothing was kept" in told["detail"]
    assert door.kept == {} and door.aside == []
    assert (await door.post(parts(encode(next(make_study(1))))))[0] == 200


async def test_what_a_job_writes(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path, LEAST_FREE + 4 * MIB)
    async with asyncio.timeout(60):
        async for instance in GivenStudy(promised=1, size=8 * MIB).instances():
            with pytest.raises(Retryable, match="ENOSPC") as caught:
                await put_down(instance, tmp_path / "instance.dcm")
            assert caught.value.uncertain, "instances before it may have been sent"

    async def result() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(MIB)

    with pytest.raises(Retryable, match="ENOSPC"):
        await Shelf(tmp_path, "1.2.3", 2**30).keep(result())
    assert list(tmp_path.iterdir()) == []


def test_a_slide(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path, LEAST_FREE + 4 * MIB)
    descriptor = os.open(tmp_path / "slide", os.O_WRONLY | os.O_CREAT)
    try:
        _write_all(descriptor, [bytes(5 * MIB)])
        with pytest.raises(OSError, match="as good as full"):
            _write_all(descriptor, [bytes(5 * MIB)])
    finally:
        os.close(descriptor)
