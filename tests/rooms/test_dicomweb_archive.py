"""The archive side against a real Orthanc, also one that dies, and against servers worse than it."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pydicom
import pytest
from aiohttp import web

from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.dicom.identity import Identity
from gateway.dicom.web import Limits
from tests.peers.dicom_samples import encode, make_instance, write_study
from tests.peers.orthanc import USER, Orthanc, orthanc

PASSWORD = "a-password"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc"), password=PASSWORD) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def archive_of(running: Orthanc, session: aiohttp.ClientSession) -> DicomwebArchive:
    return DicomwebArchive(
        "vna", running.dicomweb, session, username=USER, password=running.password, limits=Limits(read=10)
    )


async def test_a_study_is_found_listed_and_relayed_bit_for_bit(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    paths = write_study(tmp_path, 7, series=2, size=300)
    running.upload(paths)
    first = pydicom.dcmread(paths[0])
    archive = archive_of(running, session)

    (match,) = await archive.find_studies(accession_number=first.AccessionNumber, patient_id=first.PatientID)
    assert match.study_instance_uid == first.StudyInstanceUID
    assert match.instance_count == 7
    assert (match.identity.patient_id, match.identity.study_id) == (first.PatientID, "S1")
    assert match.availability is None
    assert [match] == await archive.find_studies(study_instance_uid=first.StudyInstanceUID)
    assert await archive.find_studies(accession_number=first.AccessionNumber, patient_id="other") == []
    assert await archive.find_studies(study_instance_uid="1.2.3") == []

    listed = await archive.list_instances(first.StudyInstanceUID)
    assert {(ref.sop_class_uid, ref.modality) for ref in listed} == {(str(first.SOPClassUID), "DX")}
    assert len(listed) == 7

    sent = {
        pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID: path.read_bytes() for path in paths
    }
    retrieval = archive.retrieve(first.StudyInstanceUID, {ref.sop_instance_uid for ref in listed})
    got: dict[str, bytes] = {}
    async for instance in retrieval:
        if len(got) == 3:
            got[instance.header.sop_instance_uid] = sent[instance.header.sop_instance_uid]
            continue  # unread bytes are skipped
        got[instance.header.sop_instance_uid] = b"".join([chunk async for chunk in instance.chunks()])
    assert got == sent

    wanted = listed[3]
    (instance,) = [
        each
        async for each in archive.retrieve_instance(
            first.StudyInstanceUID, wanted.series_instance_uid, wanted.sop_instance_uid
        )
    ]
    assert instance.header.sop_instance_uid == wanted.sop_instance_uid
    assert [each async for each in archive.retrieve("1.2.3", {"1.2.3.4"})] == []
    health = await archive.check()
    assert health.ok, health


async def test_an_archive_killed_in_the_middle_of_a_study_is_no_success(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """It sends no length: to HTTP, the answer of a killed Orthanc ends well."""
    paths = write_study(tmp_path / "files", 16, size=1024)
    with orthanc(tmp_path / "orthanc") as dying:
        dying.upload(paths)
        archive = archive_of(dying, session)
        whole: list[str] = []
        retrieval = archive.retrieve(pydicom.dcmread(paths[0]).StudyInstanceUID)
        with pytest.raises(Retryable) as caught:
            async for instance in retrieval:
                async for _ in instance.chunks():
                    if len(whole) == 2 and dying.process.poll() is None:
                        dying.kill()
                whole.append(instance.header.sop_instance_uid)
        assert 2 <= len(whole) < 16
        assert "archive vna" in caught.value.message
        with pytest.raises(Retryable):
            await archive.find_studies(study_instance_uid="1.2.3")
        assert not (await archive.check()).ok


async def test_wrong_credentials_need_a_person(running: Orthanc, session: aiohttp.ClientSession) -> None:
    archive = DicomwebArchive("vna", running.dicomweb, session, username=USER, password="wrong-one")
    with pytest.raises(NeedsHuman, match="archive vna refused our credentials") as caught:
        await archive.find_studies(study_instance_uid="1.2.3")
    assert "wrong-one" not in str(caught.value)
    with pytest.raises(NeedsHuman):
        await anext(aiter(archive.retrieve("1.2.3")))
    assert not (await archive.check()).ok


# Servers that are worse than Orthanc: each answers every request alike.

LIMITS = Limits(connect=5, read=5, query=5)
Serve = Callable[..., Awaitable[DicomwebArchive]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve(session: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler, limits: Limits = LIMITS) -> DicomwebArchive:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        return DicomwebArchive("vna", f"http://127.0.0.1:{port}/", session, limits=limits)

    yield start
    for runner in runners:
        await runner.cleanup()


def always(*, status: int = 200, body: bytes = b"", kind: str | None = None, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(
            status=status, body=body, headers=given | ({"Content-Type": kind} if kind else {})
        )

    return handle


def multipart(*parts: bytes, end: bytes = b"\r\n--B--") -> tuple[bytes, str]:
    body = b"".join(b"\r\n--B\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts) + end
    return body, "multipart/related; type=application/dicom; boundary=B"


async def walk(archive: DicomwebArchive, study: str = "1.2.3") -> list[str]:
    return [each.header.sop_instance_uid async for each in archive.retrieve(study)]


@pytest.mark.parametrize(
    ("answer", "failure", "words"),
    [
        ({"status": 401}, NeedsHuman, "credentials"),
        ({"status": 403}, NeedsHuman, "credentials"),
        ({"status": 302, "Location": "/login"}, NeedsHuman, "another address"),
        ({"status": 406}, NeedsHuman, "406"),
        ({"status": 429, "Retry_After": "17"}, Retryable, "429"),
        ({"status": 503}, Retryable, "503"),
        ({"body": b"<html>Sign in</html>", "kind": "text/html"}, Retryable, "text/html"),
        ({"body": b"{]", "kind": "application/dicom+json"}, Retryable, "JSON|instances|no UID"),
        ({"body": b"[1]", "kind": "application/json"}, Retryable, "JSON|instances|no UID"),
        ({"body": b'[{"00080050": null}]', "kind": "application/json"}, Retryable, "JSON|instances|no UID"),
    ],
)
async def test_unwelcome_answers_are_classed(
    serve: Serve, answer: dict[str, object], failure: type[Failure], words: str
) -> None:
    archive = await serve(always(**answer))  # type: ignore[arg-type]
    with pytest.raises(failure, match=words) as caught:
        await archive.find_studies(study_instance_uid="1.2.3")
    assert caught.value.advice
    if answer.get("status") == 429:
        assert isinstance(caught.value, Retryable)
        assert caught.value.after == 17
    with pytest.raises(failure, match=words):
        await walk(archive)


@pytest.mark.parametrize(
    "answer", [{"status": 204}, {"body": b"[]", "kind": "application/dicom+json"}, {"status": 404}]
)
async def test_nothing_found_has_three_shapes(serve: Serve, answer: dict[str, object]) -> None:
    nothing = always(**answer)  # type: ignore[arg-type]

    async def handle(request: web.Request) -> web.StreamResponse:
        return await (always(status=204) if "limit" in request.query else nothing)(request)

    archive = await serve(handle)
    assert await archive.find_studies(accession_number="A1") == []
    assert await archive.list_instances("1.2.3") == []


async def test_a_server_without_its_dicomweb_hasnt_said_that_it_lacks_the_study(serve: Serve) -> None:
    archive = await serve(always(status=404, body=b"<h1>Not Found</h1>", kind="text/html"))
    with pytest.raises(Retryable, match="404 while looking for a study: there is no DICOMweb at its url"):
        await archive.find_studies(study_instance_uid="1.2.3")
    assert not (await archive.check()).ok


async def test_values_may_lack_and_filters_may_be_ignored(serve: Serve) -> None:
    rows = [
        {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00080050": {"Value": ["A1"]}, "00100020": None,
         "00201208": {"vr": "IS", "Value": [None]}, "00080056": {"Value": ["ONLINE", "nearline"]},
         "00080051": {"vr": "SQ", "Value": [{}]}},
        {"0020000D": {"Value": ["1.2.4"]}, "00080050": {"Value": ["A1 "]}, "00080056": {"vr": "CS"},
         "00201208": {"Value": ["16"]}, "00100020": {"Value": [""]}},
        {"0020000D": {"Value": ["1.2.5"]}, "00080050": {"Value": ["A12"]}},
        {"0020000D": {"Value": ["1.2.6"]}, "00080050": {"Value": ["A0", "A1"]}, "00100021": {"Value": ["H"]},
         "00080051": {"Value": [{"00400031": {"Value": ["LAB"]}}]}, "00100020": {"Value": ["P1", "P2"]}},
        {"0020000D": {"Value": ["1.2.7"]}, "00080050": None},
        {"0020000D": {"Value": ["1.2.8"]}},
    ]  # fmt: skip
    archive = await serve(always(body=json.dumps(rows).encode(), kind="application/dicom+json"))
    bare, full, several = await archive.find_studies(accession_number="A1")
    assert several.identity == Identity("1.2.6", "P1\\P2", "H", "A0\\A1", "LAB")
    assert (bare.identity, bare.instance_count) == (Identity("1.2.3", accession_number="A1"), None)
    assert bare.availability == "NEARLINE"
    assert (full.study_instance_uid, full.instance_count, full.availability) == ("1.2.4", 16, None)
    assert full.identity.patient_id == ""
    assert "1.2.4" not in repr(full)
    with pytest.raises(Permanent):
        await archive.find_studies(accession_number="")
    with pytest.raises(Retryable, match="answered a search for one study with others alone"):
        await archive.find_studies(study_instance_uid="1.2.9")  # it may lie beyond the end of a capped list


@pytest.mark.parametrize("cap", [1, 3, 16, 100])
@pytest.mark.parametrize("heeds_offset", [True, False])
async def test_a_capped_listing_is_read_to_its_end(serve: Serve, cap: int, heeds_offset: bool) -> None:
    asked: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(int(request.query.get("offset", 0)))
        first = asked[-1] if heeds_offset else 0
        rows = [{"00080018": {"Value": [f"1.2.{n}"]}, "0020000E": {"Value": ["1.9"]}} for n in range(16)]
        return web.json_response(rows[first : first + cap], content_type="application/dicom+json")

    archive = await serve(answer)
    listed = await archive.list_instances("1.2.3")
    assert len(listed) == (16 if heeds_offset else min(cap, 16))
    assert len(asked) <= 18
    asked.clear()
    await archive.list_instances("1.2.3", promised=16)
    assert cap < 16 or len(asked) == 1


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize("beyond", [200, 204, 400])
@pytest.mark.parametrize("heeds_offset", [True, False])
async def test_a_server_that_says_that_it_told_a_part_is_taken_at_its_word(
    serve: Serve, heeds_offset: bool, beyond: int, status: int
) -> None:
    rows = [{"00080018": {"Value": [f"1.2.{n}"]}, "0020000E": {"Value": ["1.9"]}} for n in range(16)]
    warning = {"Warning": '299 vna: "There are additional results that can be requested"'}

    async def answer(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset and not heeds_offset:
            offset = 0 if beyond == 200 else 99
        page, kind = rows[offset : offset + 6], "application/dicom+json"
        if not page:
            return web.json_response([], status=beyond, content_type=kind)
        more = offset + 6 < len(rows)
        headers = warning if more and status == 200 else {}
        return web.json_response(page, headers=headers, content_type=kind, status=status if more else 200)

    archive = await serve(answer)
    if heeds_offset:
        assert len(await archive.list_instances("1.2.3")) == 16
    else:
        with pytest.raises(Retryable, match="only a part"):
            await archive.list_instances("1.2.3")
    study = {"0020000D": {"Value": ["1.2.3"]}, "00080050": {"Value": ["A1"]}}
    body = json.dumps([study]).encode()
    archive = await serve(always(status=200, body=body, kind="application/json", **warning))
    assert len(await archive.find_studies(study_instance_uid="1.2.3")) == 1, "there is but one"
    for asked in ({"accession_number": "A1"}, {"study_instance_uid": "1.2.4"}):
        with pytest.raises(Retryable, match="only a part"):
            await archive.find_studies(**asked)


async def test_part_of_a_study_is_no_study(serve: Serve) -> None:
    body, kind = multipart(encode(make_instance("1.2.3", "1.2.4", "1.2.5.1")))
    with pytest.raises(Retryable, match="only a part"):
        await walk(await serve(always(body=body, kind=kind, status=206)))


async def test_a_server_that_knows_no_asterisk_gives_what_it_can(serve: Serve) -> None:
    body, kind = multipart(encode(make_instance("1.2.3", "1.2.4", "1.2.5.1")))

    async def answer(request: web.Request) -> web.Response:
        if "*" in request.headers["Accept"]:
            return web.Response(status=406)
        return web.Response(body=body, headers={"Content-Type": kind})

    assert await walk(await serve(answer)) == ["1.2.5.1"]


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "../../tools", "1.2/../3", "1..2", "1.2.", "1.2/3", "1.2 ", "1" * 65, "1.2?x", "x"]
)
async def test_what_is_no_uid_reaches_no_path(serve: Serve, uid: str) -> None:
    archive = await serve(always(status=500))
    with pytest.raises(Permanent, match="no DICOM UID"):
        await archive.list_instances(uid)
    with pytest.raises(Permanent, match="no DICOM UID"):
        await walk(archive, uid)
    with pytest.raises(Permanent, match="no DICOM UID"):
        await anext(aiter(archive.retrieve_instance("1.2", uid, "1.3")))


async def test_only_the_closing_boundary_makes_a_study_whole(serve: Serve) -> None:
    parts = [encode(make_instance("1.2.3", "1.2.4", f"1.2.5.{n}")) for n in range(3)]
    body, kind = multipart(*parts)
    assert await walk(await serve(always(body=body, kind=kind))) == ["1.2.5.0", "1.2.5.1", "1.2.5.2"]
    body, kind = multipart(*parts, end=b"")
    with pytest.raises(Retryable, match="closing boundary"):
        await walk(await serve(always(body=body, kind=kind)))
    body, kind = multipart(parts[0], parts[1][:200])
    with pytest.raises(Retryable, match="ends before"):
        await walk(await serve(always(body=body, kind=kind)))
    body, kind = multipart(b"<html>" * 100)
    with pytest.raises(Retryable, match="no instance"):
        await walk(await serve(always(body=body, kind=kind)))
    body, kind = multipart()
    assert await walk(await serve(always(body=body, kind=kind))) == []


async def test_an_instance_that_was_cut_off_is_not_passed_on_as_whole(serve: Serve) -> None:
    whole, cut = (encode(make_instance("1.2.3", "1.2.4", f"1.2.5.{n}", size=300)) for n in range(2))
    body, kind = multipart(whole, cut[:-1])
    archive = await serve(always(body=body, kind=kind))
    got = []
    with pytest.raises(Retryable, match="isn't whole"):
        async for instance in archive.retrieve("1.2.3"):
            got.append(b"".join([chunk async for chunk in instance.chunks()]))
    assert got == [whole]


async def test_one_instance_may_come_without_a_frame(serve: Serve) -> None:
    data = encode(make_instance("1.2.3", "1.2.4", "1.2.5", size=600))
    archive = await serve(always(body=data, kind="application/dicom"))
    (instance,) = [each async for each in archive.retrieve("1.2.3")]
    assert instance.header.sop_instance_uid == "1.2.5"

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/dicom", "Connection": "close"})
        response.force_close()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(Retryable):
        await walk(await serve(cut))


async def test_another_patients_instance_stops_the_study(serve: Serve) -> None:
    body, kind = multipart(
        encode(make_instance("1.2.3", "1.2.4", "1.2.5")), encode(make_instance("1.2.9", "1.2.4", "1.2.6"))
    )
    archive = await serve(always(body=body, kind=kind))
    got = []
    with pytest.raises(NeedsHuman, match="another study"):
        async for instance in archive.retrieve("1.2.3"):
            got.append(instance.header.sop_instance_uid)
    assert got == ["1.2.5"]


async def test_what_comes_is_given_on_whether_it_was_asked_for_or_not(serve: Serve) -> None:
    body, kind = multipart(*(encode(make_instance("1.2.3", "1.2.4", f"1.2.5.{n}")) for n in range(3)))
    archive = await serve(always(body=body, kind=kind))
    asked = {"1.2.5.0", "1.2.5.1", "1.2.5.9"}
    got = [instance.header.sop_instance_uid async for instance in archive.retrieve("1.2.3", asked)]
    assert got == ["1.2.5.0", "1.2.5.1", "1.2.5.2"]


async def test_a_silent_archive_is_given_up(serve: Serve) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "multipart/related; boundary=B"})
        await response.prepare(request)
        await response.write(b"--B\r\n")
        await asyncio.sleep(1)
        return response

    archive = await serve(hang, replace(LIMITS, read=0.2))
    with pytest.raises(Retryable, match="did not answer in time"):
        await walk(archive)


async def test_bytes_are_there_once_and_until_the_next_instance(serve: Serve) -> None:
    body, kind = multipart(*(encode(make_instance("1.2.3", "1.2.4", f"1.2.5.{n}")) for n in range(2)))
    archive = await serve(always(body=body, kind=kind))
    instances = aiter(archive.retrieve("1.2.3"))
    first = await anext(instances)
    assert len(b"".join([chunk async for chunk in first.chunks()])) > 8192
    with pytest.raises(RuntimeError):
        await anext(aiter(first.chunks()))
    second = await anext(instances)
    with pytest.raises(StopAsyncIteration):
        await anext(instances)
    with pytest.raises(RuntimeError):
        [chunk async for chunk in second.chunks()]


async def test_a_slow_reader_holds_the_archive_back(serve: Serve) -> None:
    """300 MB on their way, a few MB in memory."""
    body, kind = multipart(encode(make_instance("1.2.3", "1.2.4", "1.2.5")), end=b"")
    piece = bytes(1024 * 1024)

    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        await response.write(body)
        for _ in range(300):
            await response.write(piece)
        await response.write(b"\r\n--B--\r\n")
        return response

    archive = await serve(pour)
    tracemalloc.start()
    try:
        size = 0
        async for instance in archive.retrieve("1.2.3"):
            await asyncio.sleep(0.3)
            async for chunk in instance.chunks():
                size += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 300 * len(piece)
    assert peak < 40 * len(piece)
