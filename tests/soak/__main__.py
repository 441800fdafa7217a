"""A hospital that works through a planned run of faults: python -m tests.soak (make soak).

The plan follows from the seed alone. At the end all is well again, there is a bounded time of quiet, and then
the gateway's word is compared with what the peers have: see `model`.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.soak.asking import Askers
from tests.soak.faults import Faults
from tests.soak.hospital import Hospital, hospital
from tests.soak.ledger import Ledger
from tests.soak.model import Model, Verdict
from tests.soak.plan import Plan, make_plan
from tests.soak.returning import Vendors

CLONE_NEWNS = 0x00020000
QUIET = 600.0  # the longest time that the gateway may need once all is well again
STOPPED = 130


def main() -> int:
    arguments = _parse()
    plan = make_plan(
        arguments.seed,
        arguments.minutes * 60,
        arguments.replicas,
        jobs_a_minute=arguments.jobs,
        faults_a_minute=arguments.faults,
    )
    _print_plan(plan)
    if arguments.plan:
        return 0
    _leave_mounts_to_ourselves()
    folder = Path(tempfile.mkdtemp(prefix="gateway-soak-"))
    folder.chmod(0o711)  # the database's user goes through it
    kept: Path | None = arguments.keep
    try:
        verdict = asyncio.run(_soak_until_signal(plan, folder, not arguments.no_upgrade))
    except BaseException:
        kept = kept or _place_for_logs()
        raise
    else:
        if verdict is None:
            return STOPPED
        if verdict.violations:
            kept = kept or _place_for_logs()
        return 1 if verdict.violations else 0
    finally:
        if kept is not None:
            _keep(folder, kept)
            print(f"logs: {kept}")
        shutil.rmtree(folder, ignore_errors=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults; a time of quiet follows")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same one plans the same")
    parser.add_argument("--jobs", type=float, default=40.0, help="a minute")
    parser.add_argument("--faults", type=float, default=14.0, help="a minute")
    parser.add_argument("--keep", type=Path, help="where all logs go; on failure they are kept anyway")
    parser.add_argument("--plan", action="store_true", help="print the plan, and do nothing")
    parser.add_argument("--no-upgrade", action="store_true", help="don't begin with the last release")
    return parser.parse_args()


def _print_plan(plan: Plan) -> None:
    again = f"--minutes {plan.seconds / 60:g} --replicas {plan.replicas} --seed {plan.seed}"
    print(f'make soak ARGS="{again}": {len(plan.works)} things are asked, {len(plan.faults)} faults')
    for fault in plan.faults:
        print(fault)
    sys.stdout.flush()


def _leave_mounts_to_ourselves() -> None:
    """What we mount is seen by our own processes alone, and gone with the last of them."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0:
        os.spawnvp(os.P_WAIT, "mount", ["mount", "--make-rprivate", "/"])


def _place_for_logs() -> Path:
    return Path(tempfile.mkdtemp(prefix="gateway-soak-failed-"))


def _keep(folder: Path, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("logs", "gateway.yaml", "summary.txt", "journal.txt", "jobs.jsonl"):
        source = folder / name
        if source.is_dir():
            shutil.copytree(source, kept / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, kept / name)
    for log in folder.glob("*/*.log"):
        if log.parent.name != "logs":
            shutil.copy(log, kept / f"{log.parent.name}-{log.name}")


async def _soak_until_signal(plan: Plan, folder: Path, upgrade: bool) -> Verdict | None:
    task = asyncio.create_task(_soak(plan, folder, upgrade))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        print("\nstopped")
        return None


async def _soak(plan: Plan, folder: Path, upgrade: bool) -> Verdict:
    async with hospital(folder, plan.replicas, upgrade=upgrade) as house:
        ledger = Ledger()
        if upgrade and house.last_release is None:
            ledger.skipped.append("the upgrade: git doesn't know the last release here")
        for replica in house.replicas:
            await house.start(replica)
            await replica.listen()
        vendors = asyncio.create_task(Vendors(house, ledger).work())
        watching = asyncio.create_task(_tell(plan, house, ledger))
        try:
            began = time.time()
            await _work_through(plan, house, ledger, vendors)
            disturbed = time.time() - began
            quiet = await _calm_down(house, ledger)
            model = Model(house, ledger)
            verdict = await model.check()
            (folder / "journal.txt").write_text("\n".join(_journal(house)))
            (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, model.jobs)))
        finally:
            for task in (vendors, watching):
                task.cancel()
            await asyncio.gather(vendors, watching, return_exceptions=True)
        await asyncio.gather(*(replica.stop() for replica in house.replicas))
        await model.check_stopped()
        stops = [took for replica in house.replicas for took in replica.stops]
        summary = _summarise(plan, ledger, verdict, disturbed, quiet, stops)
        (folder / "summary.txt").write_text(summary)
        print(summary, flush=True)
        return verdict


async def _work_through(plan: Plan, house: Hospital, ledger: Ledger, vendors: asyncio.Task[None]) -> None:
    faults, askers = Faults(house, ledger), Askers(house, ledger)
    began = asyncio.get_running_loop().time()

    async def at(moment: float) -> None:
        await asyncio.sleep(max(0.0, began + moment - asyncio.get_running_loop().time()))

    async def disturb() -> None:
        async with asyncio.TaskGroup() as group:
            for fault in plan.faults:
                await at(fault.at)
                group.create_task(faults.do(fault))

    async def ask() -> None:
        async with asyncio.TaskGroup() as group:
            for work in plan.works:
                await at(work.at)
                group.create_task(askers.ask(work))

    async def upgrade() -> None:
        for replica in house.replicas if house.last_release is not None else ():
            await at(plan.seconds * (0.1 + 0.1 * replica.number))
            await faults.upgrade(replica)

    everything = asyncio.gather(disturb(), ask(), upgrade())
    try:
        await asyncio.wait((everything, vendors), return_when=asyncio.FIRST_COMPLETED)
        if vendors.done():
            vendors.result()
        await everything
    finally:
        everything.cancel()
        await asyncio.gather(everything, return_exceptions=True)


async def _calm_down(house: Hospital, ledger: Ledger) -> float:
    """Until every job has ended or is held, though a person has resumed it."""
    began = time.time()
    resumed = 0
    while time.time() - began < QUIET:
        await asyncio.sleep(2)
        with suppress(aiohttp.ClientError, TimeoutError):
            jobs = await _alive(house)
            held = [job for job in jobs if job["state"] == "held"]
            if len(held) == len(jobs) and (resumed == 1 or not held):
                break
            if len(held) == len(jobs) or (resumed == 0 and time.time() - began > QUIET / 5):
                resumed += 1
                for job in held:
                    await house.api("POST", f"jobs/{job['id']}/resume", body={})
    return time.time() - began


async def _alive(house: Hospital) -> list[dict[str, str]]:
    states = [("state", each) for each in ("received", "locating", "submitting", "analysing")]
    states += [("state", "delivering"), ("state", "held"), ("limit", "500")]
    _, listed = await house.api("GET", "jobs", params=states)
    found: list[dict[str, str]] = listed["jobs"]
    return found


async def _tell(plan: Plan, house: Hospital, ledger: Ledger) -> None:
    """A line that is written over on a terminal, one now and then elsewhere."""
    began, terminal = time.time(), sys.stdout.isatty()
    while True:
        passed = time.time() - began
        acknowledged = sum(each.acknowledged is not None for each in ledger.asked.values())
        amid = ", ".join(f"{fault.target} {fault.what}" for fault in ledger.running) or "all is well"
        line = (
            f"{passed:6.0f} s of {plan.seconds:.0f}  asked {len(ledger.asked)}, acknowledged {acknowledged}"
        )
        line += f"  {amid}"
        print(f"\r\x1b[K{line[:150]}" if terminal else line, end="" if terminal else "\n", flush=True)
        await asyncio.sleep(1 if terminal else 15)


def _journal(house: Hospital) -> list[str]:
    lines = []
    for line in house.lines.values():
        for each in line.journal:
            stands = "lost" if each.lost else "answered" if each.answered else "open"
            uids = " ".join(sorted(each.mentions))
            lines.append(f"{each.at:.3f} {line.name} {stands} {each.sent} {each.head[:150]} {uids[:400]}")
    return sorted(lines)


def _summarise(
    plan: Plan, ledger: Ledger, verdict: Verdict, disturbed: float, quiet: float, stops: list[float]
) -> str:
    faults = Counter(f"{fault.target.partition('-')[0]} {fault.what}" for *_, fault in ledger.disturbances)
    took = sorted(each.took for each in ledger.asked.values() if each.acknowledged and each.work.clicked)
    load = os.getloadavg()[1]
    lines = ["", f"seed {plan.seed}: {disturbed:.0f} s of faults, {quiet:.0f} s of quiet, load {load:.1f}"]
    lines += ["", f"{len(ledger.disturbances)} faults"]
    lines += [f"  {count:5}  {what}" for what, count in sorted(faults.items())]
    lines += [f"         not done: {each}" for each in sorted(set(ledger.skipped))]
    lines += ["", "counts"]
    lines += [f"  {count:5}  {what}" for what, count in sorted(verdict.counts.items())]
    if took:
        late = took[int(len(took) * 0.95)]
        lines.append(
            f"         a click was acknowledged in {statistics.median(took):.2f} s at the median,"
            f" {late:.2f} s at 95 %, {took[-1]:.2f} s at most"
        )
    if stops:
        lines.append(f"         of {len(stops)} stops on request the longest took {max(stops):.1f} s")
    lines += ["", "remarks", *(f"  {each}" for each in verdict.remarks)] if verdict.remarks else []
    lines += ["", f"{len(verdict.violations)} violations"]
    lines += [f"  {each}" for each in verdict.violations]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
