"""gateway simulate."""

from __future__ import annotations

import asyncio
import signal

from gateway.commands.opening import FAILED, complain, go
from gateway.simulate.milvue import TOKEN
from gateway.simulate.serve import KINDS, Kind, serve


def simulate(peer: Kind, port: int, url: str | None = None, host: str = "127.0.0.1") -> int:
    async def run() -> int:
        try:
            runner, taken = await serve(KINDS[peer](), host, port, url)
        except OSError as error:
            complain(f"port {port}: {error.strerror}")
            return FAILED
        print(f"{peer} at http://{host}:{taken}", flush=True)
        if peer == "milvue":
            print(f"it takes the token {TOKEN}", flush=True)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            await stopped.wait()
        finally:
            await runner.cleanup()
        return 0

    return go(run())
