"""Until when the peers' certificates hold. Each is looked at once an hour, by one replica, as `gateway check`
does it; what it shows is kept for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from gateway.contract import Failure, Health
from gateway.jobs.store import Store
from gateway.loops import Loop
from gateway.settings.sections import ByDimse, Settings

Check = Callable[[], Awaitable[Health]]

_EVERY = 3600.0
_BETWEEN = 2.0  # looks at one and at the next
_LOOK = 60.0
_ANSWERS_WITHIN = 30.0


class Certificates:
    def __init__(
        self, settings: Settings, store: Store, checks: Mapping[str, Check], bars: Callable[[str], bool]
    ) -> None:
        """`bars`: whether a peer is known to be away, and is better left alone."""
        self._store = store
        self._checks = {peer: checks[peer] for peer in _secured(settings) if peer in checks}
        self._bars = bars

    async def run(self) -> None:
        await Loop("certificates").run(self.look, pause=_LOOK)

    async def look(self) -> None:
        while (peer := await self._take()) is not None:
            await self._look_at(peer)
            await asyncio.sleep(_BETWEEN)

    async def _take(self) -> str | None:
        wanted = [peer for peer in self._checks if not self._bars(peer)]
        return await self._store.take_certificate(wanted, _EVERY)

    async def _look_at(self, peer: str) -> None:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                health = await self._checks[peer]()
        except (Failure, TimeoutError):
            return  # whoever needs it finds that out too, and it is told then
        if health.certificate_expires is not None:
            await self._store.record_certificate(peer, health.certificate_expires)


def _secured(settings: Settings) -> Iterator[str]:
    named: dict[str, Mapping[str, Any]] = {
        "archives": settings.archives,
        "adapters": settings.adapters,
        "destinations": settings.destinations,
        "sectra": settings.sectra.servers,
    }
    for kind, parts in named.items():
        for name, part in parts.items():
            options = getattr(part, "options", {})
            urls = [options.get("url"), getattr(part, "url", None), *getattr(part, "callback_urls", ())]
            by_http = any(str(url).startswith("https:") for url in urls)
            by_dimse = isinstance(part, ByDimse) and part.is_secured
            if by_http or by_dimse or getattr(part, "tls", None) or options.get("tls"):
                yield f"{kind}.{name}"
    if settings.audit_log is not None:
        yield "audit_log.syslog"
