"""Addresses that a vendor names: used where the configuration lets them lead, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from yarl import URL

CLOUDS = (
    *("storage.googleapis.com", "*.storage.googleapis.com", "*.blob.core.windows.net"),
    *("s3.amazonaws.com", "*.s3.amazonaws.com", "s3.*.amazonaws.com", "*.s3.*.amazonaws.com"),
)


def is_at_home(url: str, own: str) -> bool:
    """Whether it leads to the vendor's own server."""
    return URL(url, encoded=True).origin() == URL(own).origin()


def may_be_called(url: object, own: str, hosts: Sequence[str]) -> bool:
    """`own`: the vendor's url in the configuration, whose server is among the hosts, and which alone may lead
    over plain HTTP."""
    if not isinstance(url, str):
        return False
    try:
        named = URL(url, encoded=True)
        host, origin = (named.host or "").rstrip(".").lower(), named.origin()
    except (ValueError, TypeError):
        return False
    if named.user is not None or named.password is not None or not host:
        return False
    if named.scheme != "https" and not (named.scheme == "http" and own.startswith("http://")):
        return False
    return origin == URL(own).origin() or any(fnmatch(host, pattern.lower()) for pattern in hosts)
