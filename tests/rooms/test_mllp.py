"""Messages over MLLP to a real listener of the public `hl7` package, and to ones that are worse than it."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hl7.mllp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.contract import Failure, NeedsHuman, Retryable, Untrusted, blaming
from gateway.delivery.hl7 import Addressing, Message, Observation, compose
from gateway.delivery.mllp import Limits, Listener, check, send
from gateway.dicom.subject import Subject

LIMITS = Limits(connect=2, answer=0.5, total=5)
MESSAGE = compose(
    Subject("4711", "1.2.3", "Ünver^Eve", accession_number="A1"),
    Observation("app", "Application", "seen: 1|2\nand ∅", datetime(2026, 1, 2, tzinfo=UTC), b"%PDF" * 50_000),
    Addressing(),
    "job",
)

Answer = Callable[[Any, Any], Awaitable[None]]


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[Listener]]]:
    servers = []

    async def start(answer: Answer, **more: Any) -> Listener:
        async def talk(reader: Any, writer: Any) -> None:
            try:
                await answer(reader, writer)
            finally:
                writer.close()

        tls = more.pop("tls", None)
        server = await hl7.mllp.start_hl7_server(
            talk, "127.0.0.1", 0, encoding="utf-8", limit=2**22, ssl=more.pop("server_tls", None)
        )
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return Listener("destination ris", "127.0.0.1", port, tls, LIMITS)

    yield start
    for server in servers:
        server.close()


def saying(code: str, received: list[Any], **more: Any) -> Answer:
    async def answer(reader: Any, writer: Any) -> None:
        message = await reader.readmessage()
        received.append(message)
        writer.writemessage(message.create_ack(code, **more))
        await writer.drain()

    return answer


def writing(data: bytes) -> Answer:
    async def answer(reader: Any, writer: Any) -> None:
        await reader.readmessage()
        writer.write(data)
        await writer.drain()
        await reader.read()

    return answer


def frame(text: str) -> bytes:
    return b"\x0b" + text.encode() + b"\x1c\r"


async def test_a_message_arrives_whole_and_its_acknowledgement_is_read(listen: Any) -> None:
    received: list[Any] = []
    listener = await listen(saying("AA", received))
    await send(listener, MESSAGE)
    await send(listener, MESSAGE)
    assert [str(message).rstrip("\r") for message in received] == [MESSAGE.text.rstrip("\r")] * 2
    assert str(received[0].segment("MSH")[10]) == MESSAGE.control_id
    assert (await check(listener)).ok


@pytest.mark.parametrize("code", ["AE", "AR"])
async def test_a_refusal_needs_a_person(listen: Any, code: str) -> None:
    listener = await listen(saying(code, []))
    with pytest.raises(NeedsHuman, match=f"answered {code}"):
        await send(listener, MESSAGE)


async def stay_silent(reader: Any, writer: Any) -> None:
    await reader.readmessage()
    await reader.read()


async def trickle(reader: Any, writer: Any) -> None:
    """Slowly, and never to the end."""
    await reader.readmessage()
    for letter in b"\x0bMSH|^~\\&|" + b"x" * 200:
        writer.write(bytes([letter]))
        await asyncio.sleep(0.02)


async def cut(reader: Any, writer: Any) -> None:
    await reader.read(100)
    writer.transport.abort()


async def cut_before_the_answer(reader: Any, writer: Any) -> None:
    await reader.readmessage()
    writer.transport.abort()


async def stop_reading(reader: Any, writer: Any) -> None:
    writer.transport.pause_reading()
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (stay_silent, "did not acknowledge it in time"),
        (trickle, "did not acknowledge it in time"),
        (cut, "broke the connection"),
        (cut_before_the_answer, "broke the connection"),
        (writing(b"\x0bMSH|^~\\&|"), "did not acknowledge it in time"),
        (writing(b"x" * (2**20 + 2)), "more than any acknowledgement needs"),
        (writing(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1c\r"), "no acknowledgement"),
        (writing(frame("MSH|^~\\&|R\rMSA|AA|another")), "another message"),
    ],
)
async def test_without_an_acknowledgement_the_same_message_is_sent_again(
    listen: Any, answer: Answer, sentence: str
) -> None:
    listener = await listen(answer)
    with pytest.raises(Retryable, match=sentence) as caught:
        await send(listener, MESSAGE)
    assert caught.value.uncertain


async def test_a_listener_that_stops_reading_holds_nobody_up(listen: Any) -> None:
    listener = await listen(stop_reading)
    impatient = Listener(listener.name, listener.host, listener.port, None, Limits(5, 0.3, 0.5))
    large = Message(MESSAGE.control_id, MESSAGE.text * 40)
    async with asyncio.timeout(20):
        with pytest.raises(Retryable, match="in time"):
            await send(impatient, large)


async def test_an_acknowledgement_may_come_in_pieces_and_without_its_last_byte(listen: Any) -> None:
    async def answer(reader: Any, writer: Any) -> None:
        await reader.readmessage()
        for piece in (b"noise\x0bMSH|^~", b"\\&|R\rMSA|CA|", MESSAGE.control_id.encode(), b"\r\x1c"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        await reader.read()

    await send(await listen(answer), MESSAGE)


async def test_nobody_there_is_not_uncertain() -> None:
    with pytest.raises(Retryable, match="can't be reached") as caught:
        await send(Listener("destination ris", "127.0.0.1", 1, None, LIMITS), MESSAGE)
    assert not caught.value.uncertain
    assert not (await check(Listener("destination ris", "127.0.0.1", 1, None, LIMITS))).ok


async def test_tls_is_spoken_with_those_we_trust_alone(listen: Any, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(certificate)
    received: list[Any] = []
    trusting = ssl.create_default_context(cafile=certificate)
    await send(await listen(saying("AA", received), tls=trusting, server_tls=server_tls), MESSAGE)
    assert len(received) == 1
    strange = await listen(saying("AA", received), tls=ssl.create_default_context(), server_tls=server_tls)
    with pytest.raises(Untrusted), blaming("destinations.ris"):
        await send(strange, MESSAGE)
    plain = await listen(writing(b""), tls=trusting)
    for listener in (strange, plain):
        with pytest.raises(Failure) as caught, blaming("destinations.ris"):
            await send(listener, MESSAGE)
        assert not getattr(caught.value, "uncertain", False)
        assert caught.value.peer == "destinations.ris", "no job is held for what is wrong for all"
    assert len(received) == 1


def make_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
