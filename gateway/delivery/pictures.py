"""Pictures for those who look at a job: the images that its findings lie in, fetched again from where they
were found, and drawn in a process of their own. Nothing of them is kept here."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.contract import Failure, Finding, NeedsHuman, Retryable
from gateway.delivery.originals import Originals
from gateway.delivery.shapes import finding_of
from gateway.extras import is_installed, say_missing
from gateway.jobs.records import Job

_AT_ONCE = 2  # each may need some hundred megabytes
_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Picture:
    """As JPEG, perhaps smaller than the image, whose columns and rows these are."""

    jpeg: bytes
    columns: int
    rows: int


class Pictures:
    def __init__(self, originals: Originals, data_dir: Path) -> None:
        self._originals = originals
        self._data_dir = data_dir
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def draw(self, job: Job, finding: Finding) -> Picture:
        """The image that the finding lies in, without it."""
        if not is_installed("reports"):
            raise _not_drawable(say_missing("reports"))
        try:
            async with self._turns, asyncio.timeout(_LIMIT):
                with tempfile.TemporaryDirectory(prefix="picture-", dir=self._data_dir) as folder:
                    [path] = await self._originals.fetch(job, [finding], Path(folder))
                    return await _draw(path, finding.frame)
        except TimeoutError:
            raise Retryable(
                f"the picture couldn't be fetched and drawn within {_LIMIT:g} s",
                "Look again later, or look at the study in the archive.",
            ) from None


def findings_of(job: Job) -> list[Finding]:
    return [finding_of(each) for each in (job.result or {}).get("findings", [])]


def places_of(findings: Sequence[Finding]) -> list[Sequence[Finding]]:
    """What lies in each picture that something lies in."""
    placed = [each for each in findings if each.sop_instance_uid is not None and each.points]
    shown = dict.fromkeys((each.sop_instance_uid, each.frame) for each in placed)
    return [[f for f in placed if (f.sop_instance_uid, f.frame) == place] for place in shown]


async def _draw(path: Path, frame: int | None) -> Picture:
    drawn = path.with_suffix(".jpg")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.delivery.picture_process", str(path), str(frame or 0), str(drawn)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # libraries quote values there
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer: dict[str, Any] = {"why": "its pixels can't be decoded"}
    if process.returncode == 0:
        answer = json.loads(said)
    if "why" in answer:
        raise _not_drawable(answer["why"])
    return Picture(await asyncio.to_thread(drawn.read_bytes), answer["columns"], answer["rows"])


def _not_drawable(why: str) -> Failure:
    return NeedsHuman(f"the image can't be shown here: {why}", "Look at the study in the archive.")
