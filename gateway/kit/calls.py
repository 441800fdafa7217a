"""Calls on a vendor by HTTP: within the adapter's limits, without redirects, and every failure one of ours.

No address, answer or exception of a library gets into a failure's text: they may hold a credential, a signed
url or a patient's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import aiohttp
from yarl import URL

from gateway import sessions
from gateway.contract import Failure, NeedsHuman, Retryable
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
from gateway.sessions import Network

__all__ = ["Caller", "Outgoing", "Peer", "nonsense", "parse_json", "read_body", "refusal", "retry_after"]


_PLAIN = {"Accept-Encoding": "identity"}


class Caller:
    """`headers` go with every call."""

    def __init__(
        self, peer: Peer, options: WebOptions, session: aiohttp.ClientSession, headers: Mapping[str, str]
    ) -> None:
        self._peer = peer
        self._options = options
        self._session = session
        self._headers = {**_PLAIN, **headers}

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
        abroad: Sequence[Network] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """`transfer`: of a study or its results, which may take its time. A `url` without `params` is used
        as it stands: a signed one mustn't be written anew. `abroad`: it is somebody else's, whom the vendor
        has named: he gets none of our own headers, and has a public address or one in these networks."""
        ours = self._headers if abroad is None else _PLAIN
        try:
            with translated(self._peer, doing, writes=method != "GET"):
                async with asyncio.timeout(None) as patience, AsyncExitStack() as stack:
                    if body is not None:
                        body.patience = patience
                    request = self._session.request(
                        method,
                        URL(url, encoded=True) if params is None else URL(url).with_query(params),
                        headers={**ours, **(headers or {})},
                        json=json,
                        data=None if body is None else body.stream(),
                        timeout=self._options.limits(transfer=transfer),
                        allow_redirects=False,
                        raise_for_status=False,
                    )
                    with self._bounds(abroad):
                        response = await stack.enter_async_context(request)
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

    @contextmanager
    def _bounds(self, networks: Sequence[Network] | None) -> Iterator[None]:
        if networks is None:
            yield
            return
        try:
            with sessions.abroad(networks):
                yield
        except sessions.PrivateAddress:
            raise NeedsHuman(
                f"{self._peer.name} names an address that leads into a private network, which isn't followed",
                "If it belongs there, allow that network in the adapter's options, then resume the job.",
            ) from None
