"""Spans to a collector of traces, by OTLP over HTTP. While it is away spans are lost, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiohttp
import structlog

from gateway import __version__, spans
from gateway.contract import Failure, Health
from gateway.extras import say_missing
from gateway.http import Peer, refusal, translated
from gateway.loops import Loop
from gateway.settings.traces import Traces
from gateway.settings.tree import Misconfigured
from gateway.spans import Recorder, Span
from gateway.watch.metrics import count_spans

log = structlog.get_logger(__name__)

_PAUSE, _LONGEST = 2.0, 60.0
_AT_ONCE = 512
_LAST_WORDS = 2.0  # seconds
_LIMIT = aiohttp.ClientTimeout(total=10, connect=5)
_PEER = Peer("the collector of traces", "Correct traces.endpoint.", "Correct traces.token.")
_SPAN_OF_US, _SPAN_OF_A_CALL, _FAILED = 1, 3, 2  # as OTLP numbers them

Write = Callable[[Sequence[Span]], bytes]


class TraceExport:
    """Raises Misconfigured if what it needs isn't installed."""

    def __init__(self, settings: Traces, session: aiohttp.ClientSession) -> None:
        self._url = f"{settings.endpoint}/v1/traces"
        self._sample = settings.sample
        self._session = session
        self._losing = False
        self._headers = {"Content-Type": "application/x-protobuf"}
        if settings.token is not None:
            self._headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        self._write = _load_writer()

    async def run(self) -> None:
        """Until it is cancelled."""
        recorder = spans.record(self._sample)
        pause = _PAUSE

        async def send() -> None:
            nonlocal pause
            await asyncio.sleep(pause)
            pause = _PAUSE if await self._send_all(recorder) else min(_LONGEST, 2 * pause)

        try:
            await Loop("traces").run(send)
        finally:
            spans.record_no_more(recorder)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await self._send_all(recorder)

    async def check(self) -> Health:
        try:
            await self._send([])
        except Failure as failure:
            return Health(False, failure.sentences)
        return Health(True, "the collector of traces takes spans")

    async def _send_all(self, recorder: Recorder) -> bool:
        while taken := recorder.take(_AT_ONCE):
            try:
                await self._send(taken)
            except Failure as failure:
                lost = recorder.lost + len(taken)
                recorder.lost = 0
                count_spans(lost=lost)
                if not self._losing:
                    log.warning("spans are lost", error=failure.message, advice=failure.advice)
                self._losing = True
                return False
            count_spans(sent=len(taken))
            if self._losing:
                log.info("spans are taken again")
            self._losing = False
        return True

    async def _send(self, taken: Sequence[Span]) -> None:
        doing = "sending spans"
        with translated(_PEER, doing):
            async with self._session.post(
                self._url,
                data=self._write(taken),
                headers=self._headers,
                timeout=_LIMIT,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise refusal(_PEER, response, doing)


def _load_writer() -> Write:
    """Loaded by those alone who are to send spans."""
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    except ImportError:
        raise Misconfigured([f"traces: {say_missing('traces')}; install it, or take traces out"]) from None

    def valued(name: str, value: spans.Value) -> KeyValue:
        held = AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
        return KeyValue(key=name, value=held)

    ourselves = {
        "service.name": "gateway",
        "service.version": __version__,
        "host.name": socket.gethostname(),
    }

    def write(taken: Sequence[Span]) -> bytes:
        request = ExportTraceServiceRequest()
        if not taken:
            return bytes(request.SerializeToString())
        of_us = request.resource_spans.add()
        of_us.resource.attributes.extend(valued(*each) for each in ourselves.items())
        scope = of_us.scope_spans.add()
        scope.scope.name, scope.scope.version = "gateway", __version__
        for span in taken:
            told = scope.spans.add(
                trace_id=span.trace.bytes,
                span_id=span.id,
                parent_span_id=span.parent or b"",
                name=span.name,
                kind=_SPAN_OF_A_CALL if span.calls else _SPAN_OF_US,
                start_time_unix_nano=span.began,
                end_time_unix_nano=span.ended,
            )
            told.attributes.extend(valued(*each) for each in span.attributes.items())
            if span.failed:
                told.status.code = _FAILED
                told.attributes.append(valued("error.type", span.failed))
        return bytes(request.SerializeToString())

    return write
