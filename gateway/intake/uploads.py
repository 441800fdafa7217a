"""What vendors upload: results, as JSON. Bounded in number, size and time, so that no token can fill the
memory or hold up everybody else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from aiohttp import web

from gateway.intake.problems import LARGEST_RESULT, Problem, parse_json

_AT_ONCE = 4  # of one job
_WITHIN = 60.0
_TOO_LARGE = f"the body is larger than {LARGEST_RESULT >> 20} MiB: no result may be"


class Uploads:
    def __init__(self) -> None:
        self._at_work: Counter[UUID] = Counter()

    @contextmanager
    def turn(self, job_id: UUID, request: web.Request) -> Iterator[None]:
        """As long as the call lasts: what was read of it is in memory till then."""
        if not request.can_read_body:
            yield
            return
        if self._at_work[job_id] >= _AT_ONCE:
            raise Problem(
                429, "too many uploads at once for one job; wait for some to end", {"Retry-After": "1"}
            )
        self._at_work[job_id] += 1
        try:
            yield
        finally:
            self._at_work[job_id] -= 1
            if not self._at_work[job_id]:
                del self._at_work[job_id]


async def read_upload(request: web.Request, within: float = _WITHIN) -> tuple[object, int]:
    """The JSON, and how many bytes it was."""
    if (request.content_length or 0) > LARGEST_RESULT:
        raise Problem(413, _TOO_LARGE)
    raw = bytearray()
    try:
        async with asyncio.timeout(within):
            async for part in request.content.iter_any():
                raw += part
                if len(raw) > LARGEST_RESULT:
                    raise Problem(413, _TOO_LARGE)
    except TimeoutError:
        raise Problem(408, f"the body didn't come within {within:g} s; send it again") from None
    return await parse_json(bytes(raw)), len(raw)
