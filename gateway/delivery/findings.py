"""Objects from findings alone, made in the workshop: it is handed the study, and waited for only so long."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.contract import Finished, NeedsHuman, Retryable
from gateway.delivery.objects import Maker
from gateway.extras import is_installed, say_missing

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


_LIMIT = 180.0
REPORT = "report.dcm"


@dataclass(frozen=True, slots=True)
class Made:
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()


async def make_objects(
    folder: Path,
    header: Dataset,
    images: Sequence[Path],
    finished: Finished,
    maker: Maker,
    at: datetime,
    limit: float = _LIMIT,
) -> Made:
    """A report, and a drawing of each image that findings lie in; `images` are files in the folder. `at` is
    the same at every try, and so are the objects."""
    if not is_installed("reports"):
        raise NeedsHuman(
            f"no report or picture can be made of what the vendor found: {say_missing('reports')}",
            "Install it; or set make: [] at the destination; then resume the job.",
        )
    asked = await asyncio.to_thread(_prepare, folder, header, images, finished, maker, at)
    if asked is not None:
        await _work(folder, limit)
    answer = json.loads(await asyncio.to_thread((folder / "answer.json").read_text))
    made = _read(answer, folder)
    if asked is not None:
        await asyncio.to_thread((folder / "answered").write_text, asked)
    return made


async def _work(folder: Path, limit: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.delivery.findings_process", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # libraries quote values there
    )
    try:
        async with asyncio.timeout(limit):
            code = await process.wait()
    except TimeoutError:
        raise Retryable(
            f"making objects of the findings took longer than {limit:g} s",
            "Check the load of this machine; if it goes on, tell the makers of the gateway.",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0 or not await asyncio.to_thread((folder / "answer.json").is_file):
        raise Retryable(
            f"the process that makes objects of the findings ended with {code}",
            "It may have run out of memory; if it goes on, tell the makers of the gateway.",
        )


def _prepare(
    folder: Path,
    header: Dataset,
    images: Sequence[Path],
    finished: Finished,
    maker: Maker,
    at: datetime,
) -> str | None:
    """The digest of what is asked; None if that was answered before."""
    import pydicom

    pydicom.dcmwrite(folder / "header.dcm", header, enforce_file_format=True)
    request = {
        "maker": asdict(maker),
        "at": at.isoformat(),
        "summary": finished.summary,
        "findings": [asdict(finding) for finding in finished.findings],
        "images": [image.name for image in images],
    }
    text = json.dumps(request)
    asked = hashlib.sha256(text.encode() + (folder / "header.dcm").read_bytes()).hexdigest()
    known = folder / "answered"
    if known.is_file() and known.read_text() == asked:
        return None
    known.unlink(missing_ok=True)
    (folder / "answer.json").unlink(missing_ok=True)
    (folder / "request.json").write_text(text, encoding="utf-8")
    return asked


def _read(answer: dict[str, list[str]], folder: Path) -> Made:
    if "trouble" in answer:
        raise NeedsHuman(
            f"no objects can be made of the findings ({answer['trouble']})",
            "Tell the makers of the gateway; the job's history has the place.",
            detail={"places": answer["places"]},
        )
    return Made(tuple(folder / name for name in answer["objects"]), tuple(answer["remarks"]))
