"""A crowd at an HTTP server's doors, as a process of its own: silent, trickling heads, dripping bodies.

async with crowd(url, 1100, ["127.0.0.2"], stubborn=True): ...
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

HEAD = b"POST /ia/milvue-trauma HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
KINDS = b"", HEAD, HEAD + b"Content-Length: 100000\r\n\r\n{"


@asynccontextmanager
async def crowd(url: str, count: int, addresses: Sequence[str], *, stubborn: bool) -> AsyncIterator[None]:
    """Who is stubborn comes back. Yields once all have knocked."""
    where = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", __name__),
        *(str(where.hostname), str(where.port), str(count), str(int(stubborn)), *addresses),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def _stand(
    host: str, port: int, address: str, words: bytes, knocked: asyncio.Event, *, stubborn: bool
) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, local_addr=(address, 0))
            try:
                writer.write(words)
                await asyncio.sleep(0.5)
                knocked.set()
                while True:
                    if words:
                        writer.write(b"x")
                    with suppress(TimeoutError):
                        if not await asyncio.wait_for(reader.read(1000), 1):
                            break
            finally:
                writer.transport.abort()
        knocked.set()
        if not stubborn:
            return
        await asyncio.sleep(0.3)


async def _gather(host: str, port: str, count: str, stubborn: str, *addresses: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    standing, knocked = [], []
    for n in range(int(count)):
        knocked.append(asyncio.Event())
        where = host, int(port), addresses[n % len(addresses)]
        stand = _stand(*where, KINDS[n % len(KINDS)], knocked[-1], stubborn=stubborn == "1")
        standing.append(asyncio.create_task(stand))
    for event in knocked:
        await event.wait()
    print("all have knocked", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_gather(*sys.argv[1:]))
