"""When a server's certificate expires. Whether it is trusted is judged where it is used, not here."""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime
from urllib.parse import urlsplit

from cryptography import x509


async def certificate_expiry(url: str, limit: float) -> datetime | None:
    """None without TLS, and when the server can't be asked."""
    address = urlsplit(url)
    if address.scheme != "https" or address.hostname is None:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired certificate is the one whose date is wanted most
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(address.hostname, address.port or 443, ssl=context)
    except OSError:
        return None
    try:
        link: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = link.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).not_valid_after_utc if der else None
    except ValueError:
        return None
    finally:
        writer.transport.abort()
