"""A peer that speaks DIMSE, and how long it is waited for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `answer` is the longest silence within an exchange, `transfer` is for a whole study."""

    connect: float = 10
    accept: float = 30
    answer: float = 60
    query: float = 120
    transfer: float = 6 * 3600


@dataclass(frozen=True, slots=True)
class DimsePeer:
    """A DIMSE peer as the configuration names it: `name` is "archive pacs". `calling` is our own AE title."""

    name: str
    host: str
    port: int
    ae_title: str
    calling: str
    limits: Limits = Limits()
    tls: ssl.SSLContext | None = None
