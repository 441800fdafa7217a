"""Studies by STOW-RS: who may send, what is answered, and what stays of an upload that isn't whole."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import itertools
import json
import os
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_auth
from pydicom import dcmread
from pydicom.uid import generate_uid
from requests.auth import HTTPBasicAuth

from gateway.dicom.multipart import Data, PartBegin, PartEnd
from gateway.dicom.staging import Staging
from gateway.intake import problems
from gateway.intake.access import Access
from gateway.intake.incoming import Incoming
from gateway.intake.stow import StowDoor, Upload
from gateway.settings.sections import Settings
from tests.peers.bombs import deflated_bomb, nested
from tests.peers.dicom_samples import encode, make_instance, make_study
from tests.peers.dimse import AET
from tests.peers.gateway import TOKENS, TRAUMA, Hospital, hospital
from tests.peers.ports import free_port

KIND = 'multipart/related; type="application/dicom"; boundary=EDGE'
BEARER = {"Authorization": "Bearer operator-word"}


@dataclass
class Door:
    url: str
    root: Path
    http: aiohttp.ClientSession
    port: int

    async def post(
        self, body: Any, *, path: str = "trauma/studies", kind: str = KIND, **headers: str
    ) -> tuple[int, Any]:
        async with self.http.post(
            f"{self.url}/{path}", data=body, headers={"Content-Type": kind, **BEARER, **headers}
        ) as answer:
            return answer.status, json.loads(await answer.read())

    @property
    def kept(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in self.root.glob("trauma/**/*.dcm")}

    @property
    def aside(self) -> list[Path]:
        return list((self.root / ".arriving").glob("*/*"))


async def serve(folder: Path, stack: Any, *, least_free: int = 0, silence: float = 60) -> Door:
    tokens = [
        {"name": role, "role": role, "sha256": hashlib.sha256(f"{role}-word".encode()).hexdigest()}
        for role in ("viewer", "operator")
    ]
    settings = Settings(
        data_dir=folder,
        api_tokens=tokens,
        adapters={"vendor": {"kind": "vendor"}},
        departments={"radiology": {"applications": {"trauma": {"display_name": "T", "adapter": "vendor"}}}},
    )
    incoming = Incoming(settings, None)  # type: ignore[arg-type]
    staging = Staging(folder / "incoming" / ".arriving", least_free)
    door = StowDoor(settings, Access(settings.api_tokens), staging, incoming, longest_silence=silence)
    app = web.Application(middlewares=[problems.explain], client_max_size=1000)
    app.add_routes(door.routes())
    app.on_startup.append(door.prepare)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    stack.push_async_callback(server.close)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    return Door(str(server.make_url("/dicomweb")), folder / "incoming", http, server.port or 0)


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def door(tmp_path: Path, stack: Any) -> Door:
    return await serve(tmp_path, stack)


def parts(*files: bytes, head: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"".join(b"--EDGE\r\n%s\r\n%s\r\n" % (head, file) for file in files) + b"--EDGE--\r\n"


def uids(told: Any, tag: str) -> list[str]:
    return [item["00081155"]["Value"][0] for item in told.get(tag, {"Value": []})["Value"]]


async def test_what_is_acknowledged_is_kept_bit_by_bit(door):
    files = {str(dataset.SOPInstanceUID): encode(dataset) for dataset in make_study(3, series=2)}
    status, told = await door.post(parts(*files.values()))
    assert status == 200
    assert uids(told, "00081199") == list(files)
    assert told.keys() == {"00081199"}
    assert door.kept == files
    assert door.aside == []
    status, told = await door.post(parts(*files.values()))  # again: as good as new
    assert status == 200 and door.kept == files


async def test_one_instance_may_come_bare(door):
    (made,) = make_study(1, size=400)
    status, told = await door.post(encode(made), kind="application/dicom")
    assert status == 200
    assert uids(told, "00081199") == [made.SOPInstanceUID] == list(door.kept)


async def test_failures_are_told_instance_by_instance(door):
    good, other = make_instance(generate_uid(), generate_uid()), make_instance(generate_uid(), generate_uid())
    path = f"trauma/studies/{good.StudyInstanceUID}"
    status, told = await door.post(parts(encode(good), encode(other), b"no instance"), path=path)
    assert status == 202
    assert uids(told, "00081199") == [good.SOPInstanceUID] == list(door.kept)
    assert uids(told, "00081198") == [other.SOPInstanceUID]
    assert told["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert told["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]
    status, told = await door.post(parts(encode(other)), path=path)
    assert (status, uids(told, "00081198")) == (409, [other.SOPInstanceUID])
    assert list(door.kept) == [good.SOPInstanceUID] and door.aside == []


async def test_parts_that_are_nothing_are_not_counted_without_end(door):
    (made,) = make_study(1)
    status, told = await door.post(parts(*[b""] * 5000, encode(made)))
    assert status == 400 and "are no instance" in told["detail"]
    assert door.kept == {} and door.aside == []


async def test_a_part_shorter_than_it_says_is_not_taken(door):
    (made,) = make_study(1)
    data = encode(made)
    head = b"Content-Type: application/dicom\r\nContent-Length: %d\r\n" % len(data)
    status, _ = await door.post(parts(data[:-100], head=head))
    assert (status, door.kept, door.aside) == (409, {}, [])
    status, _ = await door.post(parts(data, head=head))
    assert status == 200


@pytest.mark.parametrize(
    ("body", "kind", "path", "status"),
    [
        (b"garbage", KIND, "trauma/studies", 400),
        (b"", KIND, "trauma/studies", 400),
        (b"", "application/dicom", "trauma/studies", 400),
        (b"--EDGE--\r\n", KIND, "trauma/studies", 400),
        (parts(b"x"), "multipart/related; type=application/dicom", "trauma/studies", 400),
        (parts(b"x"), KIND.replace("dicom", "dicom+json"), "trauma/studies", 415),
        (b"{}", "application/json", "trauma/studies", 415),
        (parts(b"x"), KIND, "nowhere/studies", 404),
        (b"garbage", "application/dicom", "trauma/studies", 409),
    ],
)
async def test_what_is_no_upload_is_refused(door, body, kind, path, status):
    got, told = await door.post(body, kind=kind, path=path)
    assert got == status, told
    assert door.kept == {} and door.aside == []


@pytest.mark.parametrize(
    ("word", "status"), [("", 401), ("wrong", 401), ("viewer-word", 403), ("operator-word", 200)]
)
@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
async def test_who_may_send(door, scheme, word, status):
    (made,) = make_study(1)
    given = base64.b64encode(f"router:{word}".encode()).decode() if scheme == "Basic" else word
    got, _ = await door.post(parts(encode(made)), Authorization=f"{scheme} {given}")
    assert got == status
    assert len(door.kept) == (status == 200)


@pytest.mark.parametrize("cut", ["within an instance", "between instances", "before the last boundary"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_nothing_stays_of_an_upload_that_broke_off(door, cut, chunked):
    whole = parts(*(encode(dataset) for dataset in make_study(3, size=700)))
    second = whole.index(b"--EDGE\r\n", 10)
    end = {
        "within an instance": second + 90_000,
        "between instances": second,
        "before the last boundary": -10,
    }
    body = whole[: end[cut]]
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(whole)}"
    head = f"POST /dicomweb/trauma/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {KIND}\r\n{length}\r\n"
    writer.write(head.encode() + b"Authorization: Bearer operator-word\r\n\r\n")
    writer.write(b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)
    await writer.drain()
    async with asyncio.timeout(20):
        while not door.aside:
            await asyncio.sleep(0.01)
            if cut == "between instances":
                break
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        while door.aside:
            await asyncio.sleep(0.01)
    assert door.kept == {}
    # An end that HTTP takes for a whole one, without the closing boundary:
    assert (await door.post(body))[0] == 400
    assert door.kept == {} and door.aside == []


def test_bytes_that_were_on_their_way_to_the_disk_leave_nothing_behind(tmp_path):
    """Threads go on when their request is cancelled."""
    staging = Staging(tmp_path / ".arriving", 0)
    staging.prepare()
    upload = Upload(staging, None)
    upload.take(iter([PartBegin({}), Data(b"abc")]))
    upload.clear()
    upload.take(iter([Data(b"def"), PartEnd(), PartBegin({}), Data(b"ghi")]))
    assert list(staging.path.iterdir()) == []


async def test_an_upload_that_stands_still_is_let_go(tmp_path, stack):
    door = await serve(tmp_path, stack, silence=0.5)

    async def body() -> AsyncIterator[bytes]:
        yield parts(encode(next(make_study(1))))[:-20]
        await asyncio.sleep(30)

    status, _ = await door.post(body())
    assert (status, door.kept, door.aside) == (408, {}, [])


async def test_a_full_disk_is_told_and_may_pass(tmp_path, stack):
    door = await serve(tmp_path, stack, least_free=2**60)
    status, told = await door.post(parts(encode(next(make_study(1)))))
    assert status == 503 and "send it again" in told["detail"]
    assert door.kept == {} and door.aside == []


@pytest.mark.parametrize("call", ["open", "mkdir", "rename", "fsync"])
async def test_an_upload_is_kept_whole_or_not_at_all_wherever_the_disk_fails(tmp_path, stack, call):
    real, failed = getattr(os, call), 0
    for number in itertools.count():
        door = await serve(tmp_path / str(number), stack)
        files = [encode(made) for _ in range(2) for made in make_study(5)]
        calls = itertools.count()

        def fail(*given: Any, calls: Any = calls, number: int = number, **named: Any) -> Any:
            if next(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*given, **named)

        with pytest.MonkeyPatch.context() as disk:
            disk.setattr(os, call, fail)
            status, told = await door.post(parts(*files))
        assert door.aside == [] or call == "open"  # what can't be opened can't be cleared away either
        if status == 200:
            assert len(door.kept) == len(files)
            break
        assert (status, door.kept) == (503, {}), told
        failed += 1
    assert failed >= 2


async def test_a_large_upload_is_never_held(door):
    (made,) = make_study(1, size=64)
    data = encode(made)
    pixels = 192 * 2**20

    def body() -> Iterator[bytes]:
        yield b"--EDGE\r\n\r\n" + data
        for _ in range(pixels // 2**18):
            yield bytes(2**18)
        yield b"\r\n--EDGE--\r\n"

    async def stream() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    tracemalloc.start()
    try:
        status, _ = await door.post(stream())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 200
    assert peak < 24 * 2**20
    (kept,) = door.root.glob("trauma/**/*.dcm")
    assert kept.stat().st_size == len(data) + pixels


# -- in the running gateway -------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def house(tmp_path: Path, database_url: str) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path, database_url) as house:
        yield house


def client(house: Hospital) -> DICOMwebClient:
    session = create_session_from_auth(HTTPBasicAuth("router", TOKENS["operator"]))
    return DICOMwebClient(f"{house.gateway.url}/dicomweb/{TRAUMA}", session=session)


async def job_of(house: Hospital, study: str) -> Any:
    async with asyncio.timeout(40):
        while True:
            _, listed = await house.api("GET", "jobs", params={"study": study})
            if listed["jobs"]:
                return await house.settled(listed["jobs"][0]["id"])
            await asyncio.sleep(0.05)


async def test_a_study_that_a_client_stores_is_analysed_also_after_a_kill(house):
    house.application["settle"] = "2s"
    house.configuration["dimse"] = {"ae_title": AET, "host": "127.0.0.1", "port": free_port()}
    files = list(make_study(4, series=2))
    for file in files:
        file.preamble = bytes(128)  # or the client leaves the file's head away
    study = str(files[0].StudyInstanceUID)
    house.secrets |= {str(files[0].PatientID), str(files[0].AccessionNumber), TOKENS["operator"]}
    gateway = await house.start()
    told = await asyncio.to_thread(client(house).store_instances, files, study)
    assert len(told.ReferencedSOPSequence) == 4
    (staging,) = (house.folder / "data" / "incoming" / ".arriving").iterdir()
    (staging / "half-an-instance").write_bytes(b"half")
    await gateway.kill()
    await house.start()
    assert not staging.exists()
    job = await job_of(house, study)
    assert job["state"] == "done", job
    assert job["study"]["archive"] == f"arrived/{TRAUMA}"
    assert job["proof"]["promised"] == job["proof"]["acknowledged"] == 4
    assert {str(dcmread(each).StudyInstanceUID) for each in house.folder.glob("data/incoming/*/*/*.dcm")} <= {
        study
    }


@pytest.mark.parametrize("archived", [True, False])
async def test_late_instances_go_to_the_vendor_with_the_whole_study(house, archived):
    """Also when what came before isn't kept here any more: an archive has it, or a person decides."""
    house.application.update(settle="500ms", archives=["vna"])
    files = list(make_study(3))
    for made in files:
        made.preamble = bytes(128)
        if archived:
            house.archive.add(encode(made))
    study = str(files[0].StudyInstanceUID)
    house.secrets |= {str(files[0].PatientID), str(files[0].AccessionNumber), TOKENS["operator"]}
    await house.start()
    await asyncio.to_thread(client(house).store_instances, files[:2], study)
    first = await job_of(house, study)
    assert (first["state"], first["proof"]["acknowledged"]) == ("done", 2)
    for folder in (house.folder / "data" / "incoming" / TRAUMA).iterdir():
        shutil.rmtree(folder)
    await asyncio.to_thread(client(house).store_instances, files[2:], study)
    async with asyncio.timeout(40):
        while len((listed := await house.api("GET", "jobs", params={"study": study}))[1]["jobs"]) < 2:
            await asyncio.sleep(0.05)
    late = await house.settled(listed[1]["jobs"][0]["id"])
    if archived:
        assert (late["state"], late["proof"]["acknowledged"]) == ("done", 3), late
    else:
        assert late["state"] == "held", late
        assert "only part of the study was sent to us: 2 instances" in late["error"]["message"]
        assert sum(house.milvue.arrivals.values()) == 2


async def test_an_instance_that_is_cut_off_is_refused_and_the_rest_kept(door):
    whole, cut = make_study(2)
    status, told = await door.post(parts(encode(whole), encode(cut)[:-1]))
    assert (status, uids(told, "00081198")) == (202, [cut.SOPInstanceUID])
    assert told["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert list(door.kept) == [whole.SOPInstanceUID] and door.aside == []


@pytest.mark.parametrize("made", [deflated_bomb, partial(nested, depth=10_000)])
async def test_what_has_no_end_is_refused_and_the_rest_kept(door, made):
    study = generate_uid()
    (good,) = make_study(1)
    status, told = await door.post(parts(made(study, generate_uid(), "1.2.3"), encode(good)))
    assert status == 202
    assert uids(told, "00081198") == ["1.2.3"]
    assert list(door.kept) == [good.SOPInstanceUID]
    assert door.aside == []
