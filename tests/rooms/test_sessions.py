"""An archive behind HTTPS, a proxy, or both: reached as the configuration says, and what is said when not."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Health
from gateway.sessions import Sessions
from gateway.settings import certificates
from gateway.settings.sections import ByHttp
from gateway.simulate.archive import make_app
from gateway.simulate.front import FRONT
from tests.peers.certificates import Authority, Certified
from tests.peers.ports import await_port, free_port
from tests.peers.proxy import proxy


@asynccontextmanager
async def archive_at(tls: ssl.SSLContext | None) -> AsyncIterator[str]:
    app = make_app()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    app[FRONT].url = url
    try:
        yield f"{url}/dicom-web"
    finally:
        await runner.cleanup()


async def judged(url: str, **reached: Any) -> Health:
    async with Sessions() as sessions:
        session = sessions.to("archives.vna", ByHttp.model_validate(reached))
        return await DicomwebArchive("vna", url, session).check()


def demanding(server: Certified, authority: Authority) -> ssl.SSLContext:
    context = server.server
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def strict(server: Certified, authority: Authority) -> Iterator[str]:
    """As nginx and stunnel do, it says why it hangs up."""
    port = free_port()
    command = ["openssl", "s_server", "-accept", str(port), "-quiet", "-Verify", "1", "-verify_return_error"]
    command += ["-cert", str(server.certificate), "-key", str(server.key), "-CAfile", str(authority.path)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_port(port)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def test_both_sides_show_a_certificate(tmp_path: Path) -> None:
    theirs, ours = Authority(tmp_path, "theirs"), Authority(tmp_path, "ours")
    shown = ours.certify("gateway")
    async with archive_at(demanding(theirs.certify("vna", lasts=timedelta(days=9)), ours)) as url:
        health = await judged(url, ca=theirs.path, certificate=shown.certificate, key=shown.key)
        assert health.ok and health.certificate_expires is not None
        assert not (await judged(url, ca=theirs.path)).ok


async def test_who_wants_a_certificate_of_ours_is_told_as_such(tmp_path: Path) -> None:
    theirs, ours = Authority(tmp_path, "theirs"), Authority(tmp_path, "ours")
    stranger = theirs.certify("stranger")
    with strict(theirs.certify("vna"), ours) as url:
        for shown in ({}, {"certificate": stranger.certificate, "key": stranger.key}):
            health = await judged(url, ca=theirs.path, **shown)
            assert not health.ok and "it wants another certificate of ours" in health.sentence, health


async def test_who_is_not_trusted_is_told_with_what_to_do(tmp_path: Path) -> None:
    theirs, other = Authority(tmp_path, "theirs"), Authority(tmp_path, "other")
    for server, ca, said in (
        (theirs.certify("vna"), other.path, "authority that isn't known"),
        (theirs.certify("vna"), None, "authority that isn't known"),
        (theirs.certify("elsewhere", "192.0.2.7"), theirs.path, "another host's"),
        (theirs.certify("old", lasts=timedelta(days=-1)), theirs.path, "has expired"),
    ):
        async with archive_at(server.server) as url:
            health = await judged(url, ca=ca)
            assert not health.ok and said in health.sentence
            assert "`ca`" in health.sentence or "authority" not in said


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
async def test_a_proxy_stands_in_between(tmp_path: Path, secured: bool) -> None:
    authority = Authority(tmp_path)
    tls = authority.certify("vna").server if secured else None
    async with archive_at(tls) as url, proxy("gw:se cret") as between:
        with_password = between.url.replace("//", "//gw:se%20cret@")
        health = await judged(url, ca=authority.path, proxy=with_password)
        assert health.ok, health
        assert (health.certificate_expires is not None) is secured
        place = url.removeprefix("https://").removesuffix("/dicom-web") if secured else url
        assert between.passed[0].startswith(f"{'CONNECT' if secured else 'GET'} {place}")
        passed = len(between.passed)
        health = await judged(url, ca=authority.path, proxy=between.url)
        assert not health.ok and "The proxy doesn't let us through" in health.sentence
        assert len(between.passed) == passed
    health = await judged(url, ca=authority.path, proxy=f"http://127.0.0.1:{free_port()}")
    assert not health.ok and "The proxy to the archive vna can't be reached" in health.sentence


async def test_a_proxy_that_reaches_nobody_says_so(tmp_path: Path) -> None:
    async with proxy() as between:
        health = await judged(f"https://127.0.0.1:{free_port()}", proxy=between.url)
    assert not health.ok and "The proxy answered 502" in health.sentence


async def test_a_renewed_authority_is_trusted_and_the_old_one_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOKED_FOR", 0.0)
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.path.read_bytes())
    async with (
        archive_at(old.certify("first").server) as first,
        archive_at(new.certify("second").server) as second,
        Sessions() as sessions,
    ):
        session = sessions.to("archives.vna", ByHttp(ca=trusted))
        assert (await DicomwebArchive("vna", first, session).check()).ok
        assert not (await DicomwebArchive("vna", second, session).check()).ok
        with structlog.testing.capture_logs() as said:
            trusted.write_text("-----BEGIN")
            assert not (await DicomwebArchive("vna", second, session).check()).ok
            assert not (await DicomwebArchive("vna", second, session).check()).ok
            trusted.write_bytes(new.path.read_bytes())
            assert (await DicomwebArchive("vna", second, session).check()).ok
        assert [each["log_level"] for each in said] == ["error", "info"]
        await asyncio.sleep(0)
        another = sessions.to("archives.vna", ByHttp(ca=trusted))
        assert not (await DicomwebArchive("vna", first, another).check()).ok
