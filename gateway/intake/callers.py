"""Where a call comes from: its peer, or whom a proxy of ours says that it speaks for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from aiohttp import web

from gateway.settings.addresses import IpAddress, IpNetwork

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+")


class Callers:
    """`proxies`: those whose X-Forwarded-For is believed. What stands there to the left of the first stranger
    is the stranger's own word."""

    def __init__(self, proxies: Sequence[IpNetwork]) -> None:
        self._proxies = proxies

    def address(self, request: web.Request) -> IpAddress | None:
        """None: a proxy that doesn't say whom it speaks for in any way that can be read."""
        caller = _read(request.remote or "")
        said = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        while caller is not None and is_within(caller, self._proxies) and any(said):
            caller = _read(said.pop().strip())
        return caller


def is_within(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)


@lru_cache(256)
def _read(text: str) -> IpAddress | None:
    bare = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((bare[1] or bare[2]) if bare else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
