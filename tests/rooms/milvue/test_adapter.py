"""The Milvue adapter: what every adapter must do, twice, and what only Milvue does."""

from __future__ import annotations

import gzip
import ipaddress
import json
import ssl
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from adapters.milvue.adapter import Milvue
from adapters.milvue.wire import Options
from gateway.contract import Failure, Finished, NeedsHuman, Pending, Permanent, Retryable, Ticket
from gateway.sessions import open_session
from gateway.settings.certificates import calling
from gateway.settings.sections import Trust
from gateway.simulate.front import Fault as Disturbance
from gateway.simulate.milvue import TOKEN as SIMULATED_TOKEN
from gateway.simulate.milvue import Behaviour, MilvueState, Storage, make_app
from gateway.simulate.serve import serve
from gateway.suite.contract import AdapterContract
from gateway.suite.studies import ORDER, OTHER_STUDY, STUDY, GivenStudy, make_instance
from gateway.suite.vendor import Fault, Outcome
from tests.peers.milvue_vendor import (
    RESULT,
    TICKET,
    TOKEN,
    MilvueVendor,
    dicom,
    json_part,
    parts,
    said,
    zipped,
)


class TestByStream(AdapterContract):
    outcomes: ClassVar[tuple[Outcome, ...]] = ("empty", "forbidden", "error")

    @pytest.fixture
    async def vendor(self) -> AsyncIterator[MilvueVendor]:
        vendor = MilvueVendor()
        await vendor.start()
        yield vendor
        await vendor.stop()


class TestBySignedUrls(AdapterContract):
    outcomes: ClassVar[tuple[Outcome, ...]] = ("empty", "forbidden", "error")

    @pytest.fixture
    async def vendor(self) -> AsyncIterator[MilvueVendor]:
        vendor = MilvueVendor(signed_url=True)
        await vendor.start()
        yield vendor
        await vendor.stop()


def make_bomb(megabytes: int) -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    piece = bytes(2**20)
    return b"".join([*(squeeze.compress(piece) for _ in range(megabytes)), squeeze.flush()])


@pytest.mark.parametrize(
    ("answer", "files"),
    [
        (parts(dicom(RESULT), dicom(RESULT)), 2),
        (parts(zipped(gzip.compress(RESULT))), 1),
        (parts(zipped(gzip.compress(RESULT[:500]) + gzip.compress(RESULT[500:]))), 1),
        (parts(dicom(RESULT), json_part(status="done")), 1),
        ((200, "application/dicom", RESULT), 1),
        (parts(), 0),
        ((204, "text/plain", b""), 0),
        (said(status="empty"), 0),
        (parts(json_part(status="empty", StudyInstanceUID=STUDY)), 0),
    ],
)
async def test_results_in_each_dress(
    vendor: MilvueVendor, adapter: Milvue, answer: tuple[int, str, bytes], files: int
) -> None:
    vendor.results["smarturgences"] = answer
    finished = await adapter.poll(TICKET)
    assert isinstance(finished, Finished)
    assert [path.read_bytes() for path in finished.dicom] == [RESULT] * files
    assert finished.empty is (files == 0)
    assert ("no result" in finished.summary) is finished.empty


@pytest.mark.parametrize(
    "answer",
    [said(status="running"), parts(json_part(status="running")), said(404, status="running")],
)
async def test_done_by_status_may_still_be_running_by_results(
    vendor: MilvueVendor, adapter: Milvue, answer: tuple[int, str, bytes]
) -> None:
    vendor.results["smarturgences"] = answer
    assert isinstance(await adapter.poll(TICKET), Pending)


@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        (said(status="forbidden"), NeedsHuman, "contract"),
        (said(403, status="forbidden"), NeedsHuman, "contract"),
        (parts(json_part(status="forbidden")), NeedsHuman, "contract"),
        (said(403, message="bad token"), NeedsHuman, "credentials"),
        (said(status="error", message="no bone"), Permanent, "analyse"),
        (said(500, message="Error formatting study"), Permanent, "render"),
        (parts(json_part(message="Error formatting study")), Permanent, "render"),
        (said(422, message="output_format"), Permanent, "refuses the request"),
        (said(500, status="error", message="database"), Retryable, "answered 500"),
        (said(429, message="quota"), Retryable, "quota"),
        (said(status="done"), Retryable, "gives none"),
        (said(status="?"), Retryable, "known"),
        (parts(dicom(RESULT), closed=False), Retryable, "cut off"),
        (parts(dicom(RESULT[:-50])), Retryable, "cut off"),
        (parts(dicom(RESULT[:160])), Retryable, "cut off"),
        (parts(dicom(b"<html>Bad gateway</html>" * 20)), Retryable, "DICOM"),
        (parts(zipped(gzip.compress(RESULT)[:-4])), Retryable, "cut off"),
        (parts(zipped(RESULT)), Retryable, "gzip"),
        (parts(dicom(RESULT), dicom(make_instance(OTHER_STUDY, 1, 64))), NeedsHuman, "another study"),
        (parts(json_part(status="running", StudyInstanceUID=OTHER_STUDY)), NeedsHuman, "another study"),
    ],
)
async def test_results_that_are_none(
    vendor: MilvueVendor, adapter: Milvue, answer: tuple[int, str, bytes], kind: type[Failure], word: str
) -> None:
    vendor.results["smarturgences"] = answer
    with pytest.raises(kind) as caught:
        await adapter.poll(TICKET)
    assert word in caught.value.message


async def test_milvues_own_words_are_kept_beside_the_failure(vendor: MilvueVendor, adapter: Milvue) -> None:
    vendor.results["smarturgences"] = said(status="error", message=f"no bone for {TOKEN}")
    with pytest.raises(Permanent) as caught:
        await adapter.poll(TICKET)
    assert caught.value.said == {"milvue": "no bone for (token)"}
    assert "bone" not in caught.value.message


async def test_a_bomb_is_not_unpacked(vendor: MilvueVendor, adapter: Milvue, tmp_path: Path) -> None:
    vendor.results["smarturgences"] = parts(zipped(make_bomb(1024)))
    with pytest.raises(Retryable, match="larger than any real one"):
        await adapter.poll(TICKET)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 300 * 2**20


async def test_all_results_together_have_a_limit(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options["most_result_bytes"] = 3 * len(RESULT)
    vendor.results["smarturgences"] = parts(*[dicom(RESULT)] * 4)
    with pytest.raises(Retryable, match="larger than any real one"):
        await vendor.adapter(session, tmp_path).poll(TICKET)


async def test_the_wait_grows_to_a_bound(vendor: MilvueVendor, adapter: Milvue) -> None:
    vendor.status[STUDY] = "running"
    ticket, waits = TICKET, []
    for _ in range(12):
        pending = await adapter.poll(ticket)
        assert isinstance(pending, Pending)
        assert pending.ticket is not None
        ticket = pending.ticket
        waits.append(pending.after)
    assert (waits[0], waits[1], waits[-1]) == (2, 3, 30)


async def test_options_go_with_the_question(
    vendor: MilvueVendor, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    vendor.options |= {"output_format": "gsps", "language": "fr", "timezone": "Europe/Paris", "siteId": "7"}
    vendor.results["smarturgences"] = parts()
    adapter = vendor.adapter(session, tmp_path)
    await adapter.submit(ORDER, GivenStudy())
    await adapter.poll(TICKET)
    asked = {request.path: dict(request.query) for request in vendor.calls}
    assert asked["/v3/studies"] == {"signed_url": "false", "siteId": "7"}
    assert asked[f"/v3/smarturgences/{STUDY}"] == {"language": "fr"}
    assert asked[f"/v3/studies/{STUDY}"] == {
        "inference_command": "smarturgences",
        "signed_url": "false",
        "output_format": "gsps",
        "language": "fr",
        "timezone": "Europe/Paris",
    }


async def test_a_study_acknowledged_as_another_is_held(vendor: MilvueVendor, adapter: Milvue) -> None:
    body = json.dumps({"StudyInstanceUID": OTHER_STUDY}).encode()
    vendor.faults["submit"] = Fault(200, {"Content-Type": "application/json"}, body)
    with pytest.raises(NeedsHuman, match="another study"):
        await adapter.submit(ORDER, GivenStudy())


@pytest.mark.parametrize(("status", "kind"), [(400, Permanent), (422, Permanent), (404, NeedsHuman)])
async def test_a_study_that_is_refused(
    vendor: MilvueVendor, adapter: Milvue, status: int, kind: type[Failure]
) -> None:
    vendor.faults["submit"] = Fault(
        status, {"Content-Type": "application/json"}, b'{"message": "not an x-ray"}'
    )
    with pytest.raises(kind) as caught:
        await adapter.submit(ORDER, GivenStudy())
    assert caught.value.said == {"milvue": "not an x-ray"}


async def test_the_simulated_milvue_agrees(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    for number, signed_url in enumerate((False, True)):
        state = MilvueState(behaviours={"*": Behaviour(delay=0, gzip=not signed_url)})
        runner, port = await serve(make_app(state))
        state.front.url = f"http://127.0.0.1:{port}"
        try:
            given = {"url": state.front.url, "token": SIMULATED_TOKEN, "signed_url": signed_url}
            options = Options.model_validate({**given, "commands": ["smarturgences", "smartxpert"]})
            work = tmp_path / str(number)
            work.mkdir()
            adapter = Milvue(options, session, work)
            ticket = await adapter.submit(ORDER, GivenStudy())
            finished = await adapter.poll(ticket)
            assert isinstance(finished, Finished)
            assert (len(finished.dicom), len(finished.hl7), len(finished.documents)) == (4, 1, 1)
            assert finished.findings[0].shape == "box"
            assert state.posts == {STUDY: 1}
            assert (await adapter.check()).ok
            await adapter.flag(ticket)
            assert state.studies[STUDY].interesting == 1
            with pytest.raises(Permanent, match="doesn't know this study any more"):
                await adapter.flag(Ticket(OTHER_STUDY))
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("storage", ["google", "azure"])
async def test_the_simulated_milvue_takes_what_goes_to_its_clouds(
    session: aiohttp.ClientSession, tmp_path: Path, storage: Storage
) -> None:
    state = MilvueState(behaviours={"*": Behaviour(delay=0, storage=storage)})
    expired = Disturbance(method="PUT", path="/blob/", skip=3, times=1, status=403)
    state.front.faults += [Disturbance(method="PUT", path="/blob/", skip=1, times=1, status=503), expired]
    runner, port = await serve(make_app(state))
    state.front.url = f"http://127.0.0.1:{port}"
    try:
        given = {"url": state.front.url, "token": SIMULATED_TOKEN, "signed_url": True}
        options = Options.model_validate({**given, "commands": ["smarturgences"]})
        study = GivenStudy(promised=9, size=2_000)
        ticket = await Milvue(options, session, tmp_path).submit(ORDER, study)
    finally:
        await runner.cleanup()
    assert len(ticket.acknowledged or ()) == 9
    assert expired.times == 0 and state.studies[STUDY].signings == 2
    assert set(state.digests.values()) == study.digests and state.posts == {STUDY: 1}
    assert state.most_uploads <= 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "milvue.example"},
        {"commands": []},
        {"commands": ["../x"]},
        {"commands": ["a", "a"]},
        {"token": ""},
        {"output_format": "jpeg"},
        {"colour": "blue"},
        {"read_timeout": "0s"},
    ],
)
def test_wrong_options_are_told(wrong: dict[str, Any]) -> None:
    right = {
        "url": "https://milvue.example/",
        "token": TOKEN,
        "commands": ["smarturgences"],
        "read_timeout": "5s",
    }
    options = Options.model_validate(right)
    assert (options.url, options.read_timeout) == ("https://milvue.example", 5)
    assert TOKEN not in repr(options)
    with pytest.raises(ValidationError):
        Options.model_validate({**right, **wrong})


def issue_certificate(folder: Path, expires: datetime) -> ssl.SSLContext:
    """SlideStatus itself, for 127.0.0.1; lies in `folder` as `tls.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "milvue.example")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(expires)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.pem").write_bytes(private + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.pem")
    return context


async def test_a_certificate_is_watched_and_has_to_be_trusted(tmp_path: Path) -> None:
    expires = datetime(2099, 5, 4, 3, 2, 1, tzinfo=UTC)
    vendor = MilvueVendor()
    await vendor.start(issue_certificate(tmp_path, expires))
    try:
        async with aiohttp.ClientSession() as session:
            adapter = vendor.adapter(session, tmp_path)
            with pytest.raises(NeedsHuman, match="authority that isn't known"):
                await adapter.submit(ORDER, GivenStudy())
            assert not (await adapter.check()).ok
        async with open_session(calling("adapters.milvue", Trust(ca=tmp_path / "tls.pem"))) as session:
            health = await vendor.adapter(session, tmp_path).check()
            assert (health.ok, health.certificate_expires) == (True, expires)
    finally:
        await vendor.stop()
