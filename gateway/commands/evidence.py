"""gateway evidence."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from gateway.commands.jobs import who_asks
from gateway.commands.opening import FAILED, WRONG_USE, complain, go, read_settings, store_of
from gateway.evidence import disclosure, folder


def write(config: Path | None, out: Path, kept: bool) -> int:
    """`kept`: only what is the same in every hospital, for which no configuration is read."""
    settings = None if kept else read_settings(config)
    try:
        written = folder.fill(out, settings)
    except OSError as error:
        complain(f"{error.filename}: can't be written: {error.strerror}")
        return FAILED
    for path in written:
        print(path)
    return 0


def disclose(config: Path | None, patient: str, out: Path | None) -> int:
    """What was done with a patient's data, into a file of the folder, or printed."""
    if patient == "-":  # other users of the machine see what stands on a command line
        patient = sys.stdin.readline()
    if not patient.strip():
        complain("the patient's id is empty")
        return WRONG_USE
    settings = read_settings(config)

    async def tell() -> int:
        async with store_of(settings, "to tell what was done with a patient's data") as store:
            page, count = await disclosure.write(settings, store, patient, who_asks())
        if out is None:
            print(page)
        else:
            print(_keep(page, out))
        complain(f"{count} job{'' if count == 1 else 's'}; that this was asked for is in the audit")
        return 0

    try:
        return go(tell())
    except OSError as error:
        complain(f"{error.filename}: can't be written: {error.strerror}")
        return FAILED


def _keep(page: str, out: Path) -> Path:
    """For whoever asked alone; its name tells nobody whom it is about."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = out / f"disclosure-{datetime.now():%Y%m%d-%H%M%S-%f}.md"
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(page, encoding="utf-8")
    return path
