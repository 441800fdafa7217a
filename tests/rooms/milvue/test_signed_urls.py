"""Studies and results that go by signed urls, and where those may lead."""

from __future__ import annotations

import gzip
import stat
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
from gateway.suite.studies import ORDER, STUDY, GivenStudy
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


@pytest.mark.parametrize(("refused_with", "posts"), [(503, 1), (403, 2)])
async def test_a_broken_signed_upload_goes_on_where_it_was(
    vendor: MilvueVendor, signed: Milvue, tmp_path: Path, refused_with: int, posts: int
) -> None:
    vendor.put_faults = {3: refused_with}
    study = GivenStudy(promised=5)
    with pytest.raises(Retryable) as caught:
        await signed.submit(ORDER, study)
    assert SIGNATURE not in f"{caught.value.message}{caught.value.__cause__!r}"
    if refused_with == 503:  # the urls still hold
        assert stat.S_IMODE((tmp_path / "upload.json").stat().st_mode) == 0o600
    vendor.status[STUDY] = "running"  # the headers alone may make it known
    found = await signed.find(ORDER)
    assert found is not None and found.acknowledged is None, "which ones it has, Milvue doesn't say"
    assert len(study.acknowledged) == 2
    ticket = await signed.submit(ORDER, study)
    assert (vendor.posts, vendor.puts) == (posts, 6)
    assert vendor.digests == study.digests
    assert len(ticket.acknowledged or ()) == 3 and len(study.acknowledged) == 5
    assert not (tmp_path / "upload.json").exists()
    assert not (tmp_path / "instance.part").exists()


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
