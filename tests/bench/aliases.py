"""How fast a study goes from an archive to a vendor that may not know whose it is, beside the same study
going as it is: both by our relay, in processes of their own, taking turns; the archive sends from the page
cache.

    python -m tests.bench.aliases [--gib 1] [--mib 8 0.5] [--rounds 3] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import aiohttp
import uvloop

from tests.bench.installed import compiled, peak
from tests.bench.relay import MIB, begin_as_the_daemon, forked, receive, serve_pages, ship

LEAST = {8.0: 0.6, 0.5: 0.3}
MOST_MIB = 200
WAYS = ("plain", "aliases")


class Memory:
    """Keeps what is issued, as the database would, and gives nothing back."""

    async def keep_issued(self, job_id: object, issued: object) -> None:
        pass


def make_study(folder: Path, mib: float, gib: float) -> tuple[list[Path], list[list[str]]]:
    """Instances with the header of a real scanner, and pixels of that size."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.uid import generate_uid

    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    dataset = dcmread(path)
    dataset.PixelData = bytes(int(mib * MIB))
    dataset.Rows = dataset.Columns = int((mib * MIB / 2) ** 0.5)
    folder.mkdir()
    paths, listed = [], []
    for number in range(int(gib * 1024 / mib)):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = number + 1
        paths.append(folder / f"{number:05}.dcm")
        dataset.save_as(paths[-1])
        listed.append([str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)])
    (folder / "study.json").write_text(json.dumps({"study": str(dataset.StudyInstanceUID), "listed": listed}))
    return paths, listed


async def relay(source: str, told: dict[str, Any], target: str, way: str) -> None:
    from gateway.archives.archive import InstanceRef
    from gateway.archives.dicomweb import DicomwebArchive
    from gateway.jobs.store import Store
    from gateway.privacy.profile import Rules
    from gateway.privacy.pseudonyms import Pseudonyms
    from gateway.settings.sections import Profile
    from gateway.work.disguise import Disguise

    listed = [InstanceRef(series, sop, None, None) for series, sop in told["listed"]]
    disguise = None
    if way == "aliases":
        job = cast("Any", argparse.Namespace(id=uuid4(), patient_id="1CT1", accession_number=""))
        disguise = Disguise(cast("Store", Memory()), job, Rules(Profile()), Pseudonyms(bytes(32)))
    async with aiohttp.ClientSession() as session:
        archive = DicomwebArchive("bench", source, session)
        await ship(archive, session, told["study"], listed, target, disguise)


def run_way(way: str, source: str, study: Path, target: str) -> None:
    import gateway.work.disguise
    import gateway.work.shipment  # noqa: F401 - before the clock starts

    begin_as_the_daemon()
    if not source:
        return
    told = json.loads(study.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    uvloop.run(relay(source, told, target, way))
    seconds, usage = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak()}))


def measure(folder: Path, mib: float, gib: float, rounds: int) -> None:
    paths, listed = make_study(folder, mib, gib)
    said: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    run = [sys.executable, "-m", "tests.bench.aliases", "--way"]
    with (
        compiled([*run, "aliases", "", "", ""]) as environment,
        forked(receive) as target,
        forked(serve_pages, paths) as source,
    ):
        for _ in range(rounds):
            for way in WAYS:
                command = [*run, way, source, str(folder / "study.json"), target]
                done = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, timeout=900, env=environment
                )
                said[way].append(json.loads(done.stdout))
    for way in WAYS:
        seconds = statistics.median(each["seconds"] for each in said[way])
        cpu = statistics.median(each["cpu"] for each in said[way])
        peak = max(each["peak"] for each in said[way])
        print(
            f"{len(listed):5} × {mib:3g} MiB  {way:8} {seconds:6.2f} s {gib * 1024 / seconds:6.0f} MiB/s"
            f"  cpu {cpu:6.2f} s  peak {peak:4.0f} MiB"
        )
    pairs = list(zip(said["plain"], said["aliases"], strict=True))
    for what in ("seconds", "cpu"):
        ratio = statistics.median(plain[what] / ours[what] for plain, ours in pairs)
        print(f"    of plain forwarding, by {what}: {ratio:.2f} × as fast (target {LEAST.get(mib, 0)})")


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--gib", type=float, default=1.0)
    asked.add_argument("--mib", type=float, nargs="+", default=[8.0, 0.5])
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked.add_argument("--way", nargs=4)
    options = asked.parse_args()
    if options.way:
        way, source, study, target = options.way
        run_way(way, source, Path(study), target)
        return
    for mib in options.mib:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            measure(Path(name) / "files", mib, options.gib, options.rounds)
    print(f"target: at most {MOST_MIB} MiB")


if __name__ == "__main__":
    main()
