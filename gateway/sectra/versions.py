"""What is known of a server and stays true for a while: its version, and where it keeps results."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import aiohttp

from gateway.sectra.calls import segment
from gateway.sectra.messages import AppInfo

REMEMBERED = 3600.0  # a server's version changes only when the hospital upgrades it

Version = tuple[int, ...]
_RESULT_PLACES = ("applications", "hooks")
CASE_IMAGES: Version = (1, 9)
QUALITY_CONTROL: Version = (1, 10)


@dataclass(slots=True)
class Server:
    _results: str = _RESULT_PLACES[0]
    _info: AppInfo | None = None
    _read_at: float = 0.0

    def paths_of_results(self, application: str, rest: str) -> list[str]:
        """Older servers know results below another name, and are upgraded while we run: the first path that
        isn't unknown there is right, the last one's answer holds in any case."""
        places = sorted(_RESULT_PLACES, key=lambda place: place != self._results)
        return [f"/{place}/{segment(application)}/results{rest}" for place in places]

    def found_results(self, path: str) -> None:
        self._results = path.split("/")[1]

    @property
    def info(self) -> AppInfo | None:
        return self._info if time.monotonic() - self._read_at < REMEMBERED else None

    @info.setter
    def info(self, info: AppInfo) -> None:
        self._info, self._read_at = info, time.monotonic()


_servers: WeakKeyDictionary[aiohttp.ClientSession, dict[str, Server]] = WeakKeyDictionary()


def server_at(session: aiohttp.ClientSession, url: str) -> Server:
    """Clients come and go with each step of a job; what they learnt lives as long as their session."""
    return _servers.setdefault(session, {}).setdefault(url, Server())


def parse_version(text: str) -> Version:
    """1.10 is younger than 1.9; what isn't a version is older than all."""
    found = re.match(r"\s*v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
