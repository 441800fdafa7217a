"""Calls on a vendor by HTTP: within the adapter's limits, without redirects, and every failure one of ours.

No address, answer or exception of a library gets into a failure's text: they may hold a credential, a signed
url or a patient's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from gateway.contract import Failure, Retryable
from gateway.dicom.outgoing import Outgoing
from gateway.http import (
    Pace,
    Peer,
    chunks_of,
    nonsense,
    parse_json,
    read_body,
    refusal,
    retry_after,
    translated,
)
from gateway.kit.options import WebOptions

__all__ = ["Caller", "Outgoing", "Peer", "nonsense", "parse_json", "read_body", "refusal", "retry_after"]


class Caller:
    """`headers` go with every call."""

    def __init__(
        self, peer: Peer, options: WebOptions, session: aiohttp.ClientSession, headers: Mapping[str, str]
    ) -> None:
        self._peer = peer
        self._options = options
        self._session = session
        self._headers = {"Accept-Encoding": "identity", **headers}

    def outgoing(self, chunks: AsyncGenerator[bytes | memoryview, None], doing: str) -> Outgoing:
        """A body for `call`, which is made while it is sent."""
        return Outgoing(chunks, self._options.read_timeout, self._peer.name, doing, self._options.least)

    def chunks_of(self, response: aiohttp.ClientResponse, doing: str) -> AsyncIterator[bytes]:
        """A body that may take its time."""
        return chunks_of(response, Pace(self._peer.name, doing, self._options.least))

    @asynccontextmanager
    async def call(
        self,
        doing: str,
        method: str,
        url: str,
        *,
        transfer: bool = False,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        body: Outgoing | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """`transfer`: of a study or its results, which may take its time. A `url` without `params` is used
        as it stands: a signed one mustn't be written anew."""
        try:
            with translated(self._peer, doing, writes=method != "GET"):
                async with asyncio.timeout(None) as patience:
                    if body is not None:
                        body.patience = patience
                    async with self._session.request(
                        method,
                        URL(url, encoded=True) if params is None else URL(url).with_query(params),
                        headers={**self._headers, **(headers or {})},
                        json=json,
                        data=None if body is None else body.stream(),
                        timeout=self._options.limits(transfer=transfer),
                        allow_redirects=False,
                        raise_for_status=False,
                    ) as response:
                        yield response
        except Failure as failure:
            if body is not None and body.trouble is not None:
                raise body.trouble from None
            if isinstance(failure, Retryable) and body is not None and not body.began:
                failure.uncertain = False
            raise
        finally:
            if body is not None:
                await body.close()
