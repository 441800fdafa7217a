"""What a session for HTTP knows of certificates: until when a server's holds, and what an association with
the same peer goes by."""

from __future__ import annotations

import ssl
from datetime import datetime

import aiohttp

from gateway.sessions import Connections
from gateway.settings.certificates import calling
from gateway.settings.sections import Trust


def certificate_expiry(session: aiohttp.ClientSession, url: str) -> datetime | None:
    """As the server showed it when we called; None without TLS, and before any call."""
    connections = session.connector
    return connections.expiry_at(url) if isinstance(connections, Connections) else None


def trust_of(session: aiohttp.ClientSession, *, always: bool) -> ssl.SSLContext | None:
    """For an association with the peer of this session, if the configuration names an authority or a
    certificate for it; `always`: also where it leaves that to the machine."""
    connections = session.connector
    if isinstance(connections, Connections):
        return connections.tls if always or connections.named else None
    return calling("certificates", Trust()) if always else None
