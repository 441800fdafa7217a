"""Whole studies are removed beside what the gateway does meanwhile."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.archives.spool import Spool


async def test_no_study_is_removed_where_everybody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[tuple[Path, int]] = []
    remove = shutil.rmtree

    def note(path: Path, ignore_errors: bool = False) -> None:
        removed.append((Path(path), threading.get_ident()))
        remove(path, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", note)
    spool, job = Spool(tmp_path), uuid4()
    spool.open()
    (spool.folder(job) / "a study").touch()
    assert list((await spool.empty(job)).iterdir()) == []
    await spool.forget(job)
    assert {tmp_path / "spool" / str(job), tmp_path / "slides" / str(job)} <= {path for path, _ in removed}
    assert threading.get_ident() not in {thread for _, thread in removed}
    assert not (tmp_path / "spool" / str(job)).exists()
