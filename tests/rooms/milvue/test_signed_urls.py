"""Studies and results that go by signed urls, and where those may lead."""

from __future__ import annotations

import asyncio
import gzip
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from adapters.milvue.adapter import Milvue
from adapters.milvue.wire import Options, check_signed
from gateway.contract import Finished, NeedsHuman, Retryable
from gateway.sessions import open_session
from gateway.settings.certificates import calling
from gateway.settings.sections import Trust
from gateway.suite.studies import ORDER, STUDY, GivenInstance, GivenStudy
from tests.peers.milvue_vendor import (
    RESULT,
    SIGNATURE,
    TICKET,
    TOKEN,
    MilvueVendor,
)


@pytest.fixture
def signed(vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path) -> Milvue:
    vendor.options["signed_url"] = True
    vendor.status.clear()
    return vendor.adapter(session, tmp_path)


async def test_an_instance_that_broke_is_put_again_on_its_own(vendor: MilvueVendor, signed: Milvue) -> None:
    vendor.put_faults = {3: 503}
    study = GivenStudy(promised=5)
    ticket = await signed.submit(ORDER, study)
    assert (vendor.posts, vendor.puts) == (1, 6)
    assert vendor.digests == study.digests
    assert len(ticket.acknowledged or ()) == 5


async def test_a_broken_signed_upload_goes_on_where_it_was(
    vendor: MilvueVendor, signed: Milvue, tmp_path: Path
) -> None:
    vendor.broken = {f"{STUDY}.1.2": 503}
    study = GivenStudy(promised=5)
    with pytest.raises(Retryable) as caught:
        await signed.submit(ORDER, study)
    assert SIGNATURE not in f"{caught.value.message}{caught.value.__cause__!r}"
    assert vendor.puts == 4 + 3, "the others don't suffer for it"
    assert stat.S_IMODE((tmp_path / "upload.json").stat().st_mode) == 0o600, "the urls still hold"
    vendor.broken.clear()
    vendor.status[STUDY] = "running"  # the headers alone may make it known
    found = await signed.find(ORDER)
    assert found is not None and found.acknowledged is None, "which ones it has, Milvue doesn't say"
    assert len(study.acknowledged) == 4
    ticket = await signed.submit(ORDER, study)
    assert (vendor.posts, vendor.puts) == (1, 8)
    assert vendor.digests == study.digests
    assert len(ticket.acknowledged or ()) == 1 and len(study.acknowledged) == 5
    assert sorted(tmp_path.iterdir()) == []


async def test_a_store_that_takes_nothing_is_not_pestered(vendor: MilvueVendor, signed: Milvue) -> None:
    vendor.options["uploads_at_once"] = 1
    vendor.broken = {f"{STUDY}.1.{number}": 503 for number in range(50)}
    with pytest.raises(Retryable):
        await signed.submit(ORDER, GivenStudy(promised=50, size=2_000))
    assert vendor.puts < 50


async def test_new_urls_are_asked_for_when_the_old_expire(
    vendor: MilvueVendor, signed: Milvue, tmp_path: Path
) -> None:
    vendor.good_for = 30
    study = GivenStudy(promised=40, size=2_000)
    ticket = await signed.submit(ORDER, study)
    assert (vendor.posts, vendor.digests, vendor.complete) == (2, study.digests, [STUDY])
    assert len(ticket.acknowledged or ()) == len(study.acknowledged) == 40
    assert study.walks_open == 0 and sorted(tmp_path.iterdir()) == []


async def test_urls_that_never_hold_are_not_asked_for_without_end(
    vendor: MilvueVendor, signed: Milvue, tmp_path: Path
) -> None:
    vendor.put_faults = dict.fromkeys(range(100), 403)
    with pytest.raises(Retryable, match="no longer valid"):
        await signed.submit(ORDER, GivenStudy(promised=5))
    assert vendor.posts == 1
    assert not (tmp_path / "upload.json").exists(), "and the next try begins with new ones"


async def test_urls_of_an_earlier_try_may_have_expired(
    vendor: MilvueVendor, signed: Milvue, tmp_path: Path
) -> None:
    vendor.broken = dict.fromkeys((f"{STUDY}.1.{number}" for number in range(3)), 503)
    study = GivenStudy()
    with pytest.raises(Retryable):
        await signed.submit(ORDER, study)
    assert (tmp_path / "upload.json").exists()
    vendor.broken.clear()
    vendor.good_for = 0
    await signed.submit(ORDER, study)
    assert (vendor.posts, vendor.digests) == (2, study.digests)


async def test_several_go_at_once_and_no_more(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options |= {"signed_url": True, "uploads_at_once": 3}
    vendor.together = 3
    await vendor.adapter(session, tmp_path).submit(ORDER, GivenStudy(promised=7, size=2_000))
    assert (vendor.puts, vendor.most_together) == (7, 3)


@dataclass
class WatchedStudy(GivenStudy):
    """Notes what was acknowledged when the walk ended: a study that is then lost has been sent."""

    at_the_end: list[int] = field(default_factory=list)

    async def instances(self) -> AsyncIterator[GivenInstance]:
        async for instance in super().instances():
            yield instance
        self.at_the_end.append(len(self.acknowledged))


async def test_all_is_acknowledged_before_the_walk_ends(vendor: MilvueVendor, signed: Milvue) -> None:
    study = WatchedStudy(promised=20, size=2_000)
    await signed.submit(ORDER, study)
    assert study.at_the_end[-1] == 20, "by then it counts as sent"


async def test_an_upload_takes_no_more_of_the_line_than_it_may(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options["upload_rate"] = "1MB"
    began = asyncio.get_running_loop().time()
    await asyncio.gather(
        *(vendor.adapter(session, tmp_path).submit(ORDER, GivenStudy(size=100_000)) for _ in range(2))
    )
    assert asyncio.get_running_loop().time() - began > 0.5, "600 kB, of both together"


async def test_results_behind_signed_urls(vendor: MilvueVendor, signed: Milvue) -> None:
    vendor.status[STUDY] = "done"
    vendor.answer_signed("smarturgences", {"a": RESULT, "b": gzip.compress(RESULT)})
    finished = await signed.poll(TICKET)
    assert isinstance(finished, Finished)
    assert [path.read_bytes() for path in finished.dicom] == [RESULT, RESULT]
    vendor.answer_signed("smarturgences", {})
    finished = await signed.poll(TICKET)
    assert isinstance(finished, Finished)
    assert finished.empty
    vendor.answer_signed("smarturgences", {"a": RESULT})
    vendor.files = {}
    with pytest.raises(Retryable, match="no longer valid"):
        await signed.poll(TICKET)


async def test_a_signed_url_in_the_clear_is_not_used(
    session: aiohttp.ClientSession, tmp_path: Path, vendor: MilvueVendor
) -> None:
    options = Options.model_validate({"url": "https://milvue.example", "token": "t", "commands": ["x"]})
    for url in ("http://milvue.example/blob", "file:///etc/passwd", "https://", 7, None):
        with pytest.raises(NeedsHuman):
            check_signed(url, options)
    assert check_signed("https://milvue.example/a?b=%2F", options) == "https://milvue.example/a?b=%2F"


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/bucket/a?b=%2F",
        "https://bucket.storage.googleapis.com/a",
        "https://milvue.blob.core.windows.net/a?sig=x",
        "https://bucket.s3.eu-west-3.amazonaws.com/a",
        "https://s3.eu-west-3.amazonaws.com/bucket/a",
        "https://milvue.example/a",
    ],
)
def test_clouds_and_its_own_server_are_where_signed_urls_lead(url: str) -> None:
    options = Options.model_validate({"url": "https://milvue.example", "token": "t", "commands": ["x"]})
    assert check_signed(url, options) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/a",
        "https://storage.googleapis.com.elsewhere.example/a",
        "https://elsewhere.example/storage.googleapis.com",
        "https://storage.googleapis.com@elsewhere.example/a",
        "https://someone:else@storage.googleapis.com/a",
        "https://ec2-1-2-3-4.compute.amazonaws.com/a",
        "http://storage.googleapis.com/a",
        "https://milvue.example:8443/a",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a",
        "https://127.0.0.1/a",
        "//storage.googleapis.com/a",
        "ftp://storage.googleapis.com/a",
    ],
)
def test_signed_urls_lead_nowhere_else(url: str) -> None:
    options = Options.model_validate({"url": "https://milvue.example", "token": "t", "commands": ["x"]})
    with pytest.raises(NeedsHuman, match="isn't safe to use"):
        check_signed(url, options)


@pytest.mark.parametrize("way", ["results", "upload"])
async def test_what_a_signed_url_leads_to_is_never_told_the_token(
    vendor: MilvueVendor, tmp_path: Path, way: str
) -> None:
    """And into a private network it isn't followed, unless that is allowed."""
    seen: list[web.BaseRequest] = []

    async def serve_blob(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        await request.read()
        return web.Response(body=RESULT)

    async with RawTestServer(serve_blob) as cloud, open_session(calling("test", Trust())) as session:
        vendor.blobs = f"http://localhost:{cloud.port}"
        vendor.options |= {"signed_url": True, "signed_url_hosts": ["localhost"]}
        vendor.answer_signed("smarturgences", {"a": RESULT})

        async def go() -> object:
            adapter = vendor.adapter(session, tmp_path)
            return await (adapter.poll(TICKET) if way == "results" else adapter.submit(ORDER, GivenStudy()))

        with pytest.raises(NeedsHuman, match="private network"):
            await go()
        assert seen == []
        vendor.options["signed_url_networks"] = ["127.0.0.0/8", "::1/128"]
        await go()
        assert seen
        for request in seen:
            assert "x-goog-meta-owner" not in request.headers
            assert TOKEN not in str(request.headers) + request.raw_path
        seen.clear()
        vendor.signature = "X-Goog-SignedHeaders=content-type%3Bhost%3Bx-goog-meta-owner&sig=1"
        vendor.answer_signed("smarturgences", {"a": RESULT})
        await go()
        assert {request.headers["x-goog-meta-owner"] for request in seen} == {TOKEN}


async def test_a_signed_url_that_points_on_is_not_followed(vendor: MilvueVendor, tmp_path: Path) -> None:
    async def point(_: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": vendor.url + "/v3/studies"})

    async with RawTestServer(point) as cloud, open_session(calling("test", Trust())) as session:
        vendor.blobs = f"http://127.0.0.1:{cloud.port}"
        vendor.options |= {
            "signed_url": True,
            "signed_url_hosts": ["127.0.0.1"],
            "signed_url_networks": ["127.0.0.0/8"],
        }
        vendor.answer_signed("smarturgences", {"a": RESULT})
        with pytest.raises(NeedsHuman, match="points to another address"):
            await vendor.adapter(session, tmp_path).poll(TICKET)
