"""A job's way in a collector of traces: one trace, whoever worked on it, and nothing of the patient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.peers.gateway import hospital

pytestmark = pytest.mark.slow


class Traces:
    """A collector, which takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 503
        self.refused = 0
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.bodies: list[bytes] = []

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        assert request.headers["Authorization"] == "Bearer token-of-traces"
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        body = await request.read()
        self.bodies.append(body)
        for of_one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {each.value.string_value for each in of_one.resource.attributes}
            for scope in of_one.scope_spans:
                self.spans += scope.spans
        return web.Response(body=b"", content_type="application/x-protobuf")

    def of(self, job: str) -> list[Span]:
        return [each for each in self.spans if each.trace_id == UUID(job).bytes]


@asynccontextmanager
async def collector() -> AsyncIterator[Traces]:
    traces = Traces()
    app = web.Application()
    app.router.add_post("/v1/traces", traces.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    traces.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield traces
    await runner.cleanup()


def said(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def test_a_job_is_one_trace_whoever_worked_on_it(tmp_path: Path, database_url: str) -> None:
    async with collector() as traces, hospital(tmp_path, database_url) as house:
        house.configuration["traces"] = {"endpoint": traces.url, "sample": 1, "token": "token-of-traces"}
        house.secrets.add("token-of-traces")
        first = await house.start()
        patient = house.admit(2)
        await house.fire(patient.slide)
        await house.job_on(patient.slide, "done")
        await house.until(lambda: traces.refused, "its spans are refused, and lost")
        traces.status = 200

        patient = house.admit(2)
        gate = house.gates.close("GET", r"/v3/studies/.*")
        await house.fire(patient.slide)
        await gate.wait()
        await house.until(lambda: any(each.name == "step locating" for each in traces.spans), "spans come")
        await house.start()
        await first.kill()
        house.gates.open_all()
        job = str((await house.job_on(patient.slide, "done"))["id"])
        await house.until(lambda: any(each.name == "job" for each in traces.of(job)), "the job's span comes")
        async with asyncio.timeout(60):
            while not any(each.name == "step delivering" for each in traces.of(job)):
                await asyncio.sleep(0.05)

        spans = traces.of(job)
        [whole] = [each for each in spans if each.name == "job"]
        steps = [each for each in spans if each.parent_span_id == whole.span_id]
        calls = [each for each in spans if each.parent_span_id in {step.span_id for step in steps}]
        assert {each.name for each in steps} >= {
            *("step received", "step locating", "step submitting", "step analysing", "step delivering")
        }
        assert {said(each)["peer.service"] for each in calls} == {
            "archives.vna",
            "adapters.milvue",
            "sectra.main",
        }
        assert all(each.kind == Span.SPAN_KIND_CLIENT and each.end_time_unix_nano for each in calls)
        assert said(whole)["gateway.ended"] == "done" and said(whole)["gateway.job"] == job
        assert whole.status.code != Status.STATUS_CODE_ERROR
        assert "gateway" in traces.services
        told = b"".join(traces.bodies)
        for secret in (*house.secrets, patient.study, patient.slide, *patient.instances):
            assert secret.encode() not in told
