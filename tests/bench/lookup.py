"""What a dead archive costs: look-ups that ask it first, with it down (packets vanish) and with it up.

Down, the first look-up (or all that are on the way together) pays the limit for connecting; the others are to
cost no more than with it up.

    python -m tests.bench.lookup [--count 50] [--connect 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from contextlib import AsyncExitStack

import aiohttp
import structlog

from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.lookup import Lookup, Wanted
from gateway.dicom.identity import Identity
from gateway.dicom.web import Limits
from gateway.simulate import archive as simulated
from gateway.simulate.serve import serve
from tests.peers.dicom_samples import encode, make_study
from tests.peers.silence import silent_port

STUDY = "1.2.826.0.1.3680043.10.777.2"
IN_TURN, AT_ONCE = "one after another", "all at once"


async def measure(count: int, connect: float, rounds: int) -> dict[tuple[str, str], list[float]]:
    files = [encode(dataset) for dataset in make_study(20, study=STUDY)]
    seconds: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        ports = {"down": stack.enter_context(silent_port())}
        for name, held in (("up", []), ("pacs", files)):
            runner, ports[name] = await serve(simulated.make_app(files=held))
            stack.push_async_callback(runner.cleanup)
        archives = {
            name: DicomwebArchive(
                name, f"http://127.0.0.1:{port}/dicom-web", session, limits=Limits(connect=connect)
            )
            for name, port in ports.items()
        }

        async def time_all(how: str, first: str) -> None:
            wanted, lookup = Wanted(Identity(STUDY)), Lookup(archives, {})

            async def look_up() -> None:
                assert (await lookup.find([first, "pacs"], wanted)).archive == "pacs"

            begin = time.perf_counter()
            if how == AT_ONCE:
                await asyncio.gather(*(look_up() for _ in range(count)))
            else:
                for _ in range(count):
                    await look_up()
            seconds.setdefault((how, first), []).append(time.perf_counter() - begin)

        await time_all(IN_TURN, "up")  # the first calls of all
        seconds.clear()
        for _ in range(rounds):
            for how in (IN_TURN, AT_ONCE):
                for first in ("up", "down"):
                    await time_all(how, first)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--connect", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    seconds = asyncio.run(measure(options.count, options.connect, options.rounds))
    limit = options.connect
    for how in (IN_TURN, AT_ONCE):
        up, down = (statistics.median(seconds[how, first]) for first in ("up", "down"))
        print(
            f"{options.count} look-ups {how:18} up {up:5.2f} s  down {down:5.2f} s: one limit for connecting"
            f" ({limit:g} s; each on its own {options.count * limit:g} s) and {(down - limit) / up:4.2f} × up"
        )
    print("target: beside one limit for connecting, at most 2 × up")


if __name__ == "__main__":
    main()
