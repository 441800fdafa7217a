"""Callers of our storage service who keep it busy, and such that do more than they may."""

from __future__ import annotations

import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from struct import pack

import pytest
import structlog
from pydicom.uid import generate_uid
from pynetdicom import AE

from gateway.dicom.arrival import Watch
from gateway.dicom.lobby import Room
from gateway.dicom.reading import read_before
from tests.peers import dcmtk
from tests.peers.bombs import deflated_bomb, nested
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, Service, head, service

LOCAL = "127.0.0.1"
PEERS = {"MODALITY": LOCAL, "FLOOD": "127.0.0.2"}
TRAUMA = {"trauma": {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA"}}
VERIFICATION = b"1.2.840.10008.1.1"


def request(calling: str, called: str = "TRAUMA") -> bytes:
    """An A-ASSOCIATE-RQ, written by hand."""

    def item(kind: int, value: bytes) -> bytes:
        return pack(">BBH", kind, 0, len(value)) + value

    context = pack(">BBBB", 1, 0, 0, 0) + item(0x30, VERIFICATION) + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x50, item(0x51, pack(">L", 16384)) + item(0x52, b"1.2.3"))
    body = pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + user
    return pack(">BBL", 1, 0, len(body)) + body


def piece(value: bytes, control: int) -> bytes:
    """A P-DATA-TF with one fragment. `control`: 1 is a command's, 2 the last of its kind."""
    return pack(">BBL", 4, 0, len(value) + 6) + pack(">LBB", len(value) + 2, 1, control) + value


def command(**elements: int) -> bytes:
    """A command set of numbers, the elements named as e0100."""
    return piece(b"".join(pack("<HHLH", 0, int(name[1:], 16), 2, each) for name, each in elements.items()), 3)


def connect(port: int, source: str = LOCAL) -> socket.socket:
    return socket.create_connection((LOCAL, port), 30, (source, 0))


def echo(port: int, calling: str = "MODALITY", called: str = "TRAUMA") -> bool:
    command = ["echoscu", "-aet", calling, "-aec", called, "-to", "30", LOCAL, str(port)]
    return subprocess.run(command, capture_output=True, timeout=60, env=dcmtk.environment()).returncode == 0


@contextmanager
def trickling(port: int, count: int, source: str, data: bytes) -> Iterator[None]:
    """So many who send six bytes a second of their request, and come again when they are sent away."""
    over = threading.Event()

    def trickle() -> None:
        wires: list[tuple[socket.socket, int]] = []
        while not over.wait(1):
            wires += [(connect(port, source), 0) for _ in range(count - len(wires))]
            going: list[tuple[socket.socket, int]] = []
            for wire, at in wires:
                try:
                    wire.send(data[at : at + 6])
                    going.append((wire, at + 6))
                except OSError:
                    wire.close()
            wires = going
        for wire, _ in wires:
            wire.close()

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        time.sleep(2)
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("source", [LOCAL, "127.0.0.2"])
def test_sixty_who_trickle_their_request_shut_nobody_out(tmp_path: Path, source: str) -> None:
    paths = write_study(tmp_path / "study", 3)
    with (
        service(tmp_path / "data", None, PEERS, applications=TRAUMA) as here,
        trickling(here.port, 60, source, request("MODALITY")),
    ):
        before = threading.active_count()
        for _ in range(3):
            assert echo(here.port)
        assert dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA").returncode == 0
        assert threading.active_count() < before + 10


def test_eight_hundred_connections_have_no_thread_each(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    paths = write_study(tmp_path / "study", 1)
    try:
        with (
            service(tmp_path / "data", None, PEERS, applications=TRAUMA) as here,
            ExitStack() as stack,
        ):
            before = threading.active_count()
            for number in range(800):
                wire = stack.enter_context(closing(connect(here.port, "127.0.0.2")))
                if number % 2:
                    wire.send(request("MODALITY")[:50])
            assert threading.active_count() < before + 5
            assert dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA").returncode == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_does_not_ask_in_time_is_sent_away(tmp_path: Path) -> None:
    room = Room(patience=0.5)
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA, room=room) as here,
        closing(connect(here.port)) as wire,
    ):
        wire.settimeout(30)
        with suppress(ConnectionError):
            while True:
                wire.send(b"\1")
                if wire.recv(1) == b"":
                    break


def test_one_address_takes_not_every_seat(tmp_path: Path) -> None:
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA, most_associations=10) as here,
        ExitStack() as stack,
    ):
        answers = []
        for _ in range(10):
            wire = stack.enter_context(closing(connect(here.port, "127.0.0.2")))
            wire.sendall(request("FLOOD"))
            wire.settimeout(30)
            answers.append(wire.recv(10)[0])
        assert answers == [2] * 8 + [3] * 2
        assert echo(here.port)


def test_who_asks_byte_by_byte_is_let_in(tmp_path: Path) -> None:
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA) as here,
        closing(connect(here.port)) as wire,
    ):
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request("MODALITY"):
            wire.send(bytes([byte]))
        wire.settimeout(30)
        assert wire.recv(1) == b"\2"


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\1\0\xff\xff\xff\xff" + bytes(100), b"\4\0\0\0\0\4\0\0\0\0"]
)
def test_what_is_no_request_is_not_listened_to(tmp_path: Path, said: bytes) -> None:
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA) as here,
        closing(connect(here.port)) as wire,
    ):
        wire.sendall(said)
        wire.settimeout(30)
        with suppress(ConnectionError):
            assert wire.recv(1) == b""
        assert echo(here.port)


def test_a_request_that_can_not_be_read_takes_no_seat(tmp_path: Path) -> None:
    with service(tmp_path, None, PEERS, applications=TRAUMA, most_associations=2) as here:
        good = request("MODALITY")
        for _ in range(6):
            with closing(connect(here.port)) as wire:
                wire.sendall(good[:80] + b"\xff" * (len(good) - 80))
                wire.settimeout(30)
                with suppress(ConnectionError):
                    wire.recv(100)
        until = time.monotonic() + 30
        while not echo(here.port):
            assert time.monotonic() < until


@pytest.mark.parametrize(
    ("begun", "control"),
    [(b"", 1), (command(e0100=0x20, e0110=1, e0800=1), 0), (command(e0100=0x30, e0110=1, e0800=1), 0)],
)
def test_a_message_without_end_is_not_kept(tmp_path: Path, begun: bytes, control: int) -> None:
    """Of what is no instance: a command, or what it brings."""
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA) as here,
        closing(connect(here.port)) as wire,
    ):
        wire.sendall(request("MODALITY"))
        assert wire.recv(10_000)[:1] == b"\2"
        with suppress(ConnectionError):
            wire.sendall(begun)
            for _ in range(2048):
                wire.sendall(piece(bytes(16_000), control))
            assert wire.recv(1) == b"\7"
        assert echo(here.port)


@pytest.mark.parametrize(
    "said",
    [
        piece(b"\xff" * 200, 3),
        piece(b"", 3),
        command(e0100=0x7777, e0800=1),
        command(e0100=0x1, e0110=1, e0800=1),
        command(e0100=0x30, e0110=1),
    ],
)
def test_a_message_that_can_not_be_read_ends_its_association(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], said: bytes
) -> None:
    with (
        service(tmp_path, None, PEERS, applications=TRAUMA, most_associations=1) as here,
        closing(connect(here.port)) as wire,
    ):
        wire.sendall(request("MODALITY"))
        assert wire.recv(10_000)[:1] == b"\2"
        wire.sendall(said)
        wire.settimeout(30)
        with suppress(ConnectionError):
            assert wire.recv(1) == b"\7"
        until = time.monotonic() + 30
        while not echo(here.port):
            assert time.monotonic() < until, "it keeps its seat"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_connections_that_can_not_be_opened_end_nothing(tmp_path: Path) -> None:
    """Out of descriptors the port rests, and then goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with service(tmp_path, None, PEERS, applications=TRAUMA) as here:
        with closing(socket.socket()) as wire:
            highest = wire.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            try:
                wire.connect((LOCAL, here.port))
                time.sleep(1.5)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert echo(here.port)


# -- what a peer may do -----------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Service]:
    archives = {"pacs": {"kind": "dimse", "host": LOCAL, "port": 1, "ae_title": "PACS"}}
    with service(
        tmp_path / "data",
        None,
        {"MODALITY": LOCAL},
        applications=TRAUMA,
        may=["send"],
        archives=archives,
    ) as here:
        yield here


def kept(here: Service) -> list[Path]:
    return sorted((here.settings.data_dir / "incoming").glob("trauma/*/*.dcm"))


def test_who_may_send_sends_and_who_may_not_is_told_so(shared: Service, tmp_path: Path) -> None:
    paths = write_study(tmp_path / "study", 2)
    sent = dcmtk.send(shared.port, paths, calling="MODALITY", called="TRAUMA")
    assert sent.returncode == 0 and len(kept(shared)) == 2
    others = write_study(tmp_path / "other", 3)
    assert echo(shared.port, "PACS")
    with structlog.testing.capture_logs() as said:
        sent = dcmtk.send(shared.port, others, calling="PACS", called="TRAUMA", options=["-d", "-nh"])
    told = sent.stdout + sent.stderr
    assert told.count("0x0124") == 3 and "this AE title may not send studies" in told
    [warning] = [line for line in said if "a peer may not do" in line["event"]]  # not one for each instance
    assert (warning["calling"], warning["called"]) == ("PACS", "TRAUMA")
    assert len(kept(shared)) == 2 and shared.unplaced == []


def test_who_may_send_delivers_nothing_that_was_asked_of_an_archive(shared: Service, tmp_path: Path) -> None:
    paths = write_study(tmp_path / "study", 1)
    uids = frozenset({str(head(paths[0]).SOPInstanceUID)})
    folder = tmp_path / "expected"
    folder.mkdir()
    study = str(head(paths[0]).StudyInstanceUID)
    with shared.awaited.expect(study, folder, uids, uids, Watch(60)) as expected:
        sent = dcmtk.send(shared.port, paths, calling="MODALITY", called=AET, options=["-d"])
        assert "0x0124" in sent.stdout + sent.stderr
        assert not expected.complete
        assert dcmtk.send(shared.port, paths, calling="PACS", called=AET).returncode == 0
        assert expected.complete


# -- what they store --------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [deflated_bomb, partial(nested, depth=10_000)])
def test_bombs_are_refused(shared: Service, tmp_path: Path, made: Callable[[str, str, str], bytes]) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(made(generate_uid(), generate_uid(), generate_uid()))
    entity = AE("MODALITY")
    header = read_before(path, 0x00080050)
    entity.add_requested_context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)
    association = entity.associate(LOCAL, shared.port, ae_title="TRAUMA")
    assert association.is_established
    answer = association.send_c_store(path)
    association.release()
    assert answer.Status == 0xC000
    assert shared.unplaced == [] and kept(shared) == []
