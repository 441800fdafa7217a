"""Addresses as they are written down: networks, the urls that paths are joined to, steps of a path."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LINKED = ("slide_id", "accession_number", "study_instance_uid")
_LEAST_SECRET = 16
_MOST_DECODED = 8  # times; whatever is still encoded then was meant to lead astray


def leads_astray(path: str) -> bool:
    """Whether a step of the path leads up or nowhere, however often it is still decoded on its way."""
    for _ in range(_MOST_DECODED):
        if any(step.partition(";")[0] in (".", "..") for step in re.split(r"[/\\]", path)):
            return True
        if (decoded := unquote(path)) == path:
            return False
        path = decoded
    return True


def is_plain(url: str) -> bool:
    """Whether a path can be joined to it: no `?`, no `#`, not even empty ones, and no way out of its path."""
    if any(ord(letter) < 33 or letter in "?#\\" for letter in url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return not leads_astray(parts.path)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def lets_everybody_in(network: IpNetwork) -> bool:
    return network.prefixlen == 0


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a url begins with http:// or https:// and names a host")
    if not is_plain(value):
        raise ValueError("a url that paths are joined to has no ?, #, blank, backslash or dots as a step")
    return value.rstrip("/")


def _page(value: str) -> str:
    """For people to open: it may have a ? and a #."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or any(ord(letter) < 33 for letter in value):
        raise ValueError("a page's address begins with http:// or https://, names a host and has no blank")
    return value


def _link(value: str) -> str:
    named = re.findall(r"\{([^{}]*)\}", value)
    if not named or not set(named) <= set(LINKED):
        raise ValueError(f"a link names what it leads to: {', '.join(f'{{{each}}}' for each in LINKED)}")
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", value)) or "{" in (urlsplit(value).netloc or "{"):
        raise ValueError("a link has what it leads to in its path or behind the ?")
    return _page(value)


def _network(value: Any) -> IpNetwork:
    if isinstance(value, IpNetwork):
        return value
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError("a network is written like 10.1.0.0/16 or fd00::/8") from None
    if ipaddress.ip_interface(str(value)).ip != network.network_address:
        raise ValueError(f"{value} is an address within a network; the network is {network}")
    return network


def _secret_step(value: SecretStr) -> SecretStr:
    if not re.fullmatch(rf"[A-Za-z0-9_~-]{{{_LEAST_SECRET},128}}", value.get_secret_value()):
        raise ValueError(f"a secret path is {_LEAST_SECRET} to 128 letters, digits, dashes, _ or ~")
    return value


def _syslog_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme == "tls" and parts.hostname and parts.path in ("", "/") and parts.port != 0
        good = good and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            "an audit collector is written like tls://audit.hospital:6514; nothing but TLS, since what it is"
            " told names patients"
        )
    return value


Page = Annotated[str, AfterValidator(_page)]
Link = Annotated[str, AfterValidator(_link)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Network = Annotated[IpNetwork, BeforeValidator(_network)]
SyslogAddress = Annotated[str, AfterValidator(_syslog_address)]
SecretStep = Annotated[SecretStr, AfterValidator(_secret_step)]
