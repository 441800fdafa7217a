"""Calls by DIMSE and MLLP are spans of the step they belong to, as those by HTTP are."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from gateway import spans
from gateway.contract import Unreachable
from gateway.delivery.hl7 import Addressing, Observation, compose
from gateway.delivery.mllp import Listener, send
from gateway.dicom.association import echo, exchange
from gateway.dicom.peer import DimsePeer
from gateway.dicom.subject import Subject
from tests.peers.dimse import AET, service
from tests.peers.ports import free_port
from tests.peers.ris import ris


async def test_each_names_its_peer_and_how_it_failed(tmp_path: Path) -> None:
    message = compose(
        Subject("4711", "1.2.3", "Zyxwvut^Eve", accession_number="A1"),
        Observation("app", "Application", "seen", datetime(2026, 1, 2, tzinfo=UTC), b""),
        Addressing(),
        "job",
    )
    recorder = spans.record(1.0)
    job = uuid4()
    try:
        with service(tmp_path, None, {"GATEWAY": "127.0.0.1"}) as archive:
            peer = DimsePeer("archive pacs", "127.0.0.1", archive.port, AET, "GATEWAY")
            away = DimsePeer("archive old", "127.0.0.1", free_port(), AET, "GATEWAY")
            async with ris() as listener:
                with spans.step(job, "step delivering", {}):
                    await asyncio.wait_for(exchange(lambda watch: echo(peer, watch), 30), 30)
                    with pytest.raises(Unreachable):
                        await exchange(lambda watch: echo(away, watch), 30)
                    await send(Listener("destination ris", "127.0.0.1", listener.port), message)
    finally:
        spans.record_no_more(recorder)
    *calls, step = recorder.take(10)
    assert [(each.name, each.failed) for each in calls] == [
        ("DIMSE archives.pacs", ""),
        ("DIMSE archives.old", "Unreachable"),
        ("MLLP destinations.ris", ""),
    ]
    assert all(each.parent == step.id and each.trace == job and each.calls for each in calls)
    assert "Zyxwvut" not in str(calls) and "4711" not in str(calls)
