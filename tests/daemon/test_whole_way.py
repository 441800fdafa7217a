"""A job from the click in Sectra to its last destination: the public Sectra mock, a real Orthanc, Milvue."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sectra_client.mock_server import MockSectraServer, _make_fake_metadata
from sectra_client.schemas.results import ResultResponse

from gateway.simulate import samples
from gateway.simulate.firing import INPUTS
from tests.peers.gateway import ARCHIVE_PASSWORD, TRAUMA, hospital
from tests.peers.orthanc import Orthanc, orthanc

STUDY = samples.make_samples()[0]


@pytest.fixture
def pacs() -> Iterator[MockSectraServer]:
    with MockSectraServer(token="secret-of-the-mock").run(port=0, host="127.0.0.1") as server:
        yield server


@pytest.fixture
def vna(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc", password=ARCHIVE_PASSWORD) as running:
        paths = []
        for number, data in enumerate(STUDY.files):
            paths.append(tmp_path / f"{number}.dcm")
            paths[-1].write_bytes(data)
        running.upload(paths)
        yield running


async def test_three_inputs_go_the_whole_way(
    tmp_path: Path, database_url: str, pacs: MockSectraServer, vna: Orthanc
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["sectra"]["servers"]["public"] = {"callback_urls": [pacs.url]}
        house.configuration["archives"]["vna"]["url"] = vna.dicomweb
        await house.start()
        house.secrets |= {pacs.token}
        images = vna.sop_instance_uids()
        for number, (kind, asked) in enumerate(INPUTS.items()):
            slide = f"slide-{kind}"
            described = _make_fake_metadata(slide)
            described.studyInstanceUid = STUDY.identity.study_instance_uid
            pacs.add_slide(described)
            body: dict[str, Any] = house.invocation(slide, input=asked, context={"number": number})
            body["callbackInfo"] = {"url": pacs.url, "token": pacs.token}
            status, answer, _ = await house.invoke(body)
            assert status == 200
            acknowledged = ResultResponse.model_validate(answer)
            job = await house.job_on(slide, "done")

            [final] = await asyncio.to_thread(pacs.get_results, TRAUMA, slide)
            assert ResultResponse.model_validate(final.model_dump()).id == acknowledged.id
            assert final.versionId != acknowledged.versionId
            assert "queued" not in final.displayResult and "Milvue" in final.displayResult
            stored = vna.sop_instance_uids() - images
            assert job["proof"] == {
                "promised": len(STUDY.files),
                "sent": len(STUDY.files),
                "acknowledged": len(STUDY.files),
                "received": 2,
                "stored": 2,
            }
            assert [(each["destination"], each["state"]) for each in job["deliveries"]] == [
                ("sectra", "done"),
                ("vna", "done"),
            ]
            assert len(stored) == 2, "a second analysis makes the same objects, or Orthanc has others"
        sent = {sop: house.milvue.digests[sop] for sop in images}
        assert sent == {_sop(data): _digest(data) for data in STUDY.files}
        assert house.milvue.arrivals == dict.fromkeys(images, len(INPUTS)), "never its own results"


def _sop(data: bytes) -> str:
    return str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
