"""Results into a real Orthanc and back, and into archives that say yes too easily."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path

import aiohttp
import numpy as np
import pydicom
import pytest
import requests
from aiohttp import web
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless

from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Failure, NeedsHuman, Retryable
from gateway.delivery.archive import Stored, store, stow
from gateway.delivery.pixels_process import is_same
from gateway.delivery.readback import Standing, read_back
from gateway.dicom.storing import StowOutcome
from gateway.dicom.web import Limits, WebPeer
from tests.peers.dicom_samples import encode, make_instance, write_study
from tests.peers.orthanc import USER, Orthanc, orthanc

STUDY = "1.2.3"
BOTH = frozenset({"1.1", "1.2"})
LIMITS = Limits(connect=5, read=5, query=5)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc"), password="a-password") as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def peer_of(running: Orthanc) -> WebPeer:
    return WebPeer("archive vna", running.dicomweb, USER, running.password, limits=LIMITS)


def archive_at(session: aiohttp.ClientSession, peer: WebPeer) -> DicomwebArchive:
    return DicomwebArchive(
        "vna", peer.url, session, username=peer.username, password=peer.password, limits=peer.limits
    )


def study_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


async def test_results_are_stored_and_seen_to_be_there(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    paths = write_study(tmp_path, 3, series=3, size=700)
    peer = peer_of(running)
    before = set(tmp_path.iterdir())
    assert set((await read_back(archive_at(session, peer), paths)).values()) == {Standing.MISSING}
    stored = await store(session, archive_at(session, peer), paths, study_of(paths[0]))
    assert (stored.count, stored.remarks) == (3, ())
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths} <= running.sop_instance_uids()
    again = await store(session, archive_at(session, peer), paths, study_of(paths[0]))
    assert again.count == 3
    assert set(tmp_path.iterdir()) == before


async def test_an_archive_that_keeps_its_old_bytes_is_found_out(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (path,) = write_study(tmp_path, 1)
    study, peer = study_of(path), peer_of(running)
    await store(session, archive_at(session, peer), [path], study)
    other = pydicom.dcmread(path)
    other.PixelData = bytes(len(other.PixelData))
    path.write_bytes(encode(other))
    outcome = await stow(session, peer, [path], study)
    assert not outcome.failed, "it says that all is well"
    with pytest.raises(NeedsHuman, match="something else"):
        await store(session, archive_at(session, peer), [path], study)


async def test_attributes_put_right_by_the_archive_are_no_loss(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (path,) = write_study(tmp_path, 1)
    peer = peer_of(running)
    await store(session, archive_at(session, peer), [path], study_of(path))
    ours = pydicom.dcmread(path)
    ours.PatientName = "Spelled^Otherwise"
    ours.AccessionNumber = "B2"
    path.write_bytes(encode(ours))
    assert set((await read_back(archive_at(session, peer), [path])).values()) == {Standing.COERCED}
    stored = await store(session, archive_at(session, peer), [path], study_of(path))
    assert stored.count == 1
    assert "changed attributes" in stored.remarks[0]


def in_colours(path: Path, change: int = 0) -> None:
    """A drawing as we make them, with smooth pixels."""
    image = pydicom.dcmread(path)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    rows = np.add.outer(np.arange(64), np.arange(64))
    image.PixelData = np.stack([rows, rows + change, 255 - rows], -1).astype(np.uint8).tobytes()
    image["PixelData"].VR = "OB"
    path.write_bytes(encode(image))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1, ImplicitVRLittleEndian])
async def test_an_archive_that_encodes_anew_on_arrival_has_what_was_sent(
    session: aiohttp.ClientSession, tmp_path: Path, syntax: UID
) -> None:
    grey, colours = write_study(tmp_path / "results", 2)
    in_colours(colours)
    study = study_of(grey)
    with orthanc(tmp_path / "orthanc", password="a-password", IngestTranscoding=str(syntax)) as running:
        peer = peer_of(running)
        stored = await store(session, archive_at(session, peer), [grey, colours], study)
        assert stored.count == 2 and all("encoded otherwise" in remark for remark in stored.remarks)
        [kept, _] = running.get("/instances?expand")
        said = requests.get(f"{running.url}/instances/{kept['ID']}/file", auth=running.auth, timeout=30)
        assert pydicom.dcmread(BytesIO(said.content)).file_meta.TransferSyntaxUID == syntax
        in_colours(colours, change=9)
        standings = await read_back(archive_at(session, peer), [grey, colours])
        assert list(standings.values()) == [Standing.COERCED, Standing.OTHER]


def test_what_was_compressed_with_losses_is_the_same_if_it_nearly_is(tmp_path: Path) -> None:
    sent, returned, other = write_study(tmp_path, 3)
    for path in (sent, returned, other):
        in_colours(path)
    in_colours(other, change=60)
    image = pydicom.dcmread(returned)
    packed = BytesIO()
    Image.fromarray(image.pixel_array).save(packed, "JPEG", quality=85)
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.PhotometricInterpretation = "YBR_FULL_422"
    image.PixelData = encapsulate([packed.getvalue()])
    image.save_as(returned)
    assert not is_same(sent, returned), "it doesn't say that anything was lost"
    image.LossyImageCompression = "01"
    image.save_as(returned)
    assert is_same(sent, returned) and not is_same(other, returned)


async def test_a_kind_that_an_archive_doesnt_take_is_told_apart(
    say: Say, session: aiohttp.ClientSession, files: list[Path]
) -> None:
    peer = await say(409, told({}, {"1.1": 0x0122, "1.2": 0xC122}))
    assert (await store(session, archive_at(session, peer), files, STUDY)) == Stored(
        0, "http://vna/studies/1.2.3", (), {"1.1": 0x0122, "1.2": 0xC122}
    )


async def test_another_patients_result_is_never_sent(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (path,) = write_study(tmp_path, 1)
    with pytest.raises(NeedsHuman, match="another study"):
        await stow(session, peer_of(running), [path], STUDY)
    assert str(pydicom.dcmread(path).SOPInstanceUID) not in running.sop_instance_uids()
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(NeedsHuman, match="cut-off"):
        await stow(session, peer_of(running), [path], STUDY)


async def test_wrong_credentials_need_a_person(
    running: Orthanc, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (path,) = write_study(tmp_path, 1)
    peer = WebPeer("archive vna", running.dicomweb, USER, "wrong-one", limits=LIMITS)
    with pytest.raises(NeedsHuman, match="refused our credentials"):
        await store(session, archive_at(session, peer), [path], study_of(path))


Say = Callable[..., Awaitable[WebPeer]]


@pytest.fixture
async def say() -> AsyncIterator[Say]:
    """An archive that answers each STOW alike, and has nothing to return."""
    runners: list[web.AppRunner] = []

    async def start(status: int, body: object = None, kind: str = "application/dicom+json") -> WebPeer:
        async def take(request: web.Request) -> web.Response:
            assert request.content_length == len(await request.read())
            data = json.dumps(body).encode() if not isinstance(body, bytes) else body
            return web.Response(status=status, body=data, headers={"Content-Type": kind})

        async def have_nothing(request: web.Request) -> web.Response:
            raise web.HTTPNotFound

        app = web.Application(client_max_size=2**30)
        app.router.add_post("/studies/{study}", take)
        app.router.add_get("/{path:.*}", have_nothing)
        runner = web.AppRunner(app, shutdown_timeout=0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return WebPeer("archive vna", f"http://127.0.0.1:{runner.addresses[0][1]}", limits=LIMITS)

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for uid in ("1.1", "1.2"):
        paths.append(tmp_path / f"{uid}.dcm")
        paths[-1].write_bytes(encode(make_instance(STUDY, "1.2.4", uid)))
    return paths


def told(stored: dict[str, int | None], failed: dict[str, int] | None) -> dict[str, object]:
    def reference(uid: str, tag: str, reason: int | None) -> dict[str, object]:
        words: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        return words if reason is None else {**words, tag: {"vr": "US", "Value": [reason]}}

    body: dict[str, object] = {"00081190": {"vr": "UR", "Value": ["http://vna/studies/1.2.3"]}}
    body["00081199"] = {"vr": "SQ", "Value": [reference(u, "00081196", r) for u, r in stored.items()]}
    if failed is not None:
        body["00081198"] = {"vr": "SQ", "Value": [reference(u, "00081197", r) for u, r in failed.items()]}
    return body


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, told({"1.1": None, "1.2": None}, {}), StowOutcome(BOTH)),
        (200, told({"1.1": None}, None), StowOutcome(frozenset({"1.1"}), unconfirmed=frozenset({"1.2"}))),
        (
            202,
            told({"1.1": 0xB000}, {"1.2": 0xC000}),
            StowOutcome(frozenset({"1.1"}), {"1.1": 0xB000}, {"1.2": 0xC000}),
        ),
        (409, told({}, {"1.1": 0xA900, "1.2": 0xA900}), StowOutcome(failed={"1.1": 0xA900, "1.2": 0xA900})),
        (200, {"00081198": {"vr": "SQ", "Value": [{"00081197": {"Value": [272]}}]}},
         StowOutcome(failed={"1.1": 272, "1.2": 272})),
        (200, {"00081198": {"vr": "SQ", "Value": [{}]}}, StowOutcome(unconfirmed=BOTH)),
        (200, {"00081198": {"vr": "SQ"}, "00081199": None}, StowOutcome(unconfirmed=BOTH)),
        (200, b"", StowOutcome(unconfirmed=BOTH)),
    ],
)  # fmt: skip
async def test_what_an_archive_says_of_each_instance(
    say: Say,
    session: aiohttp.ClientSession,
    files: list[Path],
    status: int,
    body: object,
    expected: StowOutcome,
) -> None:
    outcome = await stow(session, await say(status, body), files, STUDY)
    assert (outcome.stored, outcome.warned, outcome.failed, outcome.unconfirmed) == (
        expected.stored,
        expected.warned,
        expected.failed,
        expected.unconfirmed,
    )


@pytest.mark.parametrize(
    ("status", "body", "failure", "words"),
    [
        (200, told({"1.1": None, "1.2": None}, {}), Retryable, "doesn't have 2"),
        (202, told({"1.1": None}, {"1.2": 0xA701}), Retryable, "out of resources"),
        (202, told({"1.1": None}, {"1.2": 0xC000}), NeedsHuman, "1 of 2 results.*can't understand"),
        (409, b"no", NeedsHuman, "409"),
        (400, b"no", NeedsHuman, "400"),
        (403, b"no", NeedsHuman, "credentials"),
        (503, b"no", Retryable, "503"),
    ],
)
async def test_what_isnt_stored_is_a_failure(
    say: Say,
    session: aiohttp.ClientSession,
    files: list[Path],
    status: int,
    body: object,
    failure: type[Failure],
    words: str,
) -> None:
    kind = "text/plain" if isinstance(body, bytes) else "application/dicom+json"
    peer = await say(status, body, kind)
    with pytest.raises(failure, match=words) as caught:
        await store(session, archive_at(session, peer), files, STUDY)
    assert caught.value.advice
    assert "1.2.4" not in str(caught.value)
