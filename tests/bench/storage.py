"""How fast our storage service takes what is sent to it: 500 CT instances of 0.5 MB and one multi-frame of
1 GiB, in one association, beside dcmtk's storescp.

The sender is dcmtk's, with TCP_NODELAY for both alike (else each instance costs 50 ms). Ours takes as it does
for a C-MOVE (`ours`), and as for a study that is sent to us, each instance safe from a power cut before the
success (`durable`), which storescp doesn't do. The ways take turns, so that a busy machine is fair to all.

    python -m tests.bench.storage [--rounds 3] [--instances 500] [--mib 1024] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGETS = "targets: at least 0.50 of storescp's speed in one association, under 200 MiB"
WAYS = ("storescp", "ours", "durable")


def serve(folder: Path, durable: bool) -> None:
    """Until the input ends; then says how much memory it took."""
    from gateway.archives.awaited import file_of
    from gateway.dicom.acceptor import StorageServer
    from gateway.dicom.arrival import Arrival, Reply
    from gateway.dicom.lobby import Request
    from gateway.dicom.staging import Staging
    from gateway.intake.incoming import Incoming
    from gateway.settings.sections import Settings

    def take(arrival: Arrival, _: Request) -> Reply:
        header = arrival.finish()
        if durable:
            incoming.keep("ct", header, arrival.path)
            return Reply()
        arrival.path.replace(file_of(folder, header.sop_instance_uid))
        return Reply()

    incoming = Incoming(Settings(data_dir=folder), store=None)  # type: ignore[arg-type]
    staging = Staging(folder / ".arriving")
    server = StorageServer("GATEWAY", staging, lambda _: True, lambda _: None, take, lambda *_: True)
    print(server.start("127.0.0.1", 0), flush=True)
    sys.stdin.read()
    server.stop()
    words = Path("/proc/self/status").read_text().split()
    print(int(words[words.index("VmHWM:") + 1]) / 1024, flush=True)


def send(port: int, what: Path) -> float:
    command = ["storescu", "-aec", "GATEWAY", "+sd", "127.0.0.1", str(port), str(what)]
    began = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"}, timeout=600
    )
    return time.perf_counter() - began


def run_way(way: str, what: Path, folder: Path) -> tuple[float, float]:
    """Seconds, and the peak of MiB (of ours)."""
    from tests.peers import dcmtk

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        if way == "storescp":
            with dcmtk.receiver(folder) as port:
                return send(port, what), 0.0
        command = [sys.executable, "-m", "tests.bench.storage", "--serve", way, "--folder", str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            seconds = send(int(process.stdout.readline()), what)
            process.stdin.close()
            peak = float(process.stdout.readline())
        if len(list(folder.rglob("*.dcm"))) != len(list(what.iterdir())):
            raise SystemExit(f"{way}: not all instances arrived")
        return seconds, peak
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(folder: Path, instances: int, mib: int) -> dict[str, Path]:
    from pydicom.uid import CTImageStorage, generate_uid

    from tests.peers.dicom_samples import make_instance

    small, large = folder / "ct", folder / "large"
    small.mkdir()
    large.mkdir()
    study, series = generate_uid(), generate_uid()
    for number in range(instances):
        made = make_instance(study, series, number=number + 1, size=512)
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CTImageStorage
        made.save_as(small / f"{number:05}.dcm", enforce_file_format=True)
    made = make_instance(study, series, size=1024, frames=mib)
    made.save_as(large / "0.dcm", enforce_file_format=True)
    return {f"{instances} CT of 0.5 MiB": small, f"one of {mib} MiB": large}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--instances", type=int, default=500)
    asked.add_argument("--mib", type=int, default=1024)
    asked.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked.add_argument("--serve", choices=WAYS[1:])
    given = asked.parse_args()
    if given.serve:
        serve(given.folder, given.serve == "durable")
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        for label, what in make(Path(name), given.instances, given.mib).items():
            took: dict[str, list[float]] = {way: [] for way in WAYS}
            peaks = dict.fromkeys(WAYS, 0.0)
            for _ in range(given.rounds):
                for way in WAYS:
                    seconds, peak = run_way(way, what, Path(name) / "taken")
                    took[way].append(seconds)
                    peaks[way] = max(peaks[way], peak)
            size = sum(path.stat().st_size for path in what.iterdir()) / 2**20
            theirs = statistics.median(took["storescp"])
            for way in WAYS:
                median = statistics.median(took[way])
                speed = (
                    f"{median:6.2f} s {size / median:6.0f} MiB/s {theirs / median:6.2f} of storescp's speed"
                )
                memory = f"  {peaks[way]:.0f} MiB peak" if peaks[way] else ""
                print(f"{label:20} {way:9} {speed}{memory}", flush=True)
    print(TARGETS)


if __name__ == "__main__":
    main()
