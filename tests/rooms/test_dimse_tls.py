"""DICOM over TLS with real peers: what is sent to us, what we fetch and send, what is said if it fails."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from adapters.dimse.adapter import Dimse
from adapters.dimse.wire import Options
from gateway.sessions import Sessions
from gateway.settings import certificates
from gateway.settings.certificates import calling
from gateway.settings.sections import ByHttp, Trust
from gateway.suite.studies import ORDER, GivenStudy
from tests.peers import dcmtk
from tests.peers.certificates import Authority, Certified
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, Service, by_uid, head, service
from tests.peers.orthanc import orthanc

LOCAL = "127.0.0.1"
TRAUMA = {"trauma": {"display_name": "Trauma", "adapter": "vendor", "ae_title": "TRAUMA"}}
PEERS = {"MODALITY": LOCAL, "ORTHANC": LOCAL}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def here(tmp_path: Path, authority: Authority) -> Iterator[Service]:
    ours = authority.certify("gateway")
    tls = {
        "certificate": ours.certificate,
        "key": ours.key,
        "client_ca": authority.path,
        "subjects": ["modality-*", "orthanc"],
    }
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA, tls=tls) as running:
        yield running


def shown(certified: Certified, authority: Authority) -> list[str]:
    return ["+tls", str(certified.key), str(certified.certificate), "+cf", str(authority.path)]


def kept(here: Service) -> list[Path]:
    return sorted((here.settings.data_dir / "incoming").glob("trauma/*/*.dcm"))


def test_a_study_is_sent_to_us(here: Service, authority: Authority, tmp_path: Path) -> None:
    paths = write_study(tmp_path / "study", 3)
    options = shown(authority.certify("modality-7"), authority)
    sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=options)
    assert sent.returncode == 0, sent.stderr + sent.stdout
    assert by_uid(kept(here)) == by_uid(paths)


def test_strangers_send_nothing(here: Service, authority: Authority, tmp_path: Path) -> None:
    paths = write_study(tmp_path / "study", 1)
    other = Authority(tmp_path, "other")
    for options in (
        [],
        ["+tla", "+cf", str(authority.path)],
        shown(authority.certify("stranger"), authority),
        ["+tls", *map(str, (other.certify("modality-8").key, tmp_path / "modality-8.pem")), "-ic"],
    ):
        sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=options)
        assert sent.returncode != 0, options
    assert kept(here) == []


def test_who_connects_and_makes_no_handshake_is_let_go(here: Service) -> None:
    """However slowly it is made."""
    with socket.create_connection((LOCAL, here.port), 30) as trickling:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01" + bytes(1000):
                trickling.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("way", ["move", "get"])
async def test_a_study_is_fetched_from_an_archive(
    here: Service, authority: Authority, tmp_path: Path, way: str
) -> None:
    server, ours = authority.certify("orthanc"), authority.certify("gateway-calls")
    with orthanc(
        tmp_path / "orthanc",
        DicomModalities={"gateway": {"AET": AET, "Host": LOCAL, "Port": here.port, "UseDicomTls": True}},
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(server.certificate),
        DicomTlsPrivateKey=str(server.key),
        DicomTlsTrustedCertificates=str(authority.path),
    ) as pacs:
        paths = write_study(tmp_path / "study", 4)
        pacs.upload(paths)
        uids = {str(head(path).SOPInstanceUID) for path in paths}
        trust = Trust(ca=authority.path, certificate=ours.certificate, key=ours.key)
        tls = calling("archives.pacs", trust)
        archive = here.archive(pacs.dicom_port, "ORTHANC", retrieve=way, tls=tls)
        health = await archive.check()
        assert health.ok and health.certificate_expires is not None, health
        retrieval = archive.retrieve(str(head(paths[0]).StudyInstanceUID), uids, tmp_path / "spool")
        assert {instance.header.sop_instance_uid async for instance in retrieval} == uids


@pytest.fixture
def strict(authority: Authority, tmp_path: Path) -> Iterator[int]:
    """A vendor's node that asks for a certificate."""
    options = shown(authority.certify("vendor"), authority)
    with dcmtk.receiver(tmp_path / "vendor", options=options) as port:
        yield port


def vendor(session: aiohttp.ClientSession, port: int, work: Path, **more: Any) -> Dimse:
    given = {"host": LOCAL, "port": port, "ae_title": "STORESCP", "connect_timeout": 5, "read_timeout": 5}
    return Dimse(Options.model_validate(given | more), session, work)


async def test_a_study_is_sent_to_a_vendor(strict: int, authority: Authority, tmp_path: Path) -> None:
    """The adapter has it all from its session."""
    ours = authority.certify("gateway-calls")
    reached = ByHttp(ca=authority.path, certificate=ours.certificate, key=ours.key)
    async with Sessions() as sessions:
        adapter = vendor(sessions.to("adapters.node", reached), strict, tmp_path)
        health = await adapter.check()
        assert health.ok and health.certificate_expires is not None, health
        ticket = await adapter.submit(ORDER, GivenStudy())
    received = [str(head(path).SOPInstanceUID) for path in (tmp_path / "vendor").iterdir()]
    assert sorted(received) == sorted(ticket.acknowledged or ())


async def test_who_is_not_trusted_is_told_with_what_to_do(
    strict: int, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    elsewhere = shown(authority.certify("elsewhere", "192.0.2.7"), authority)
    async with Sessions() as sessions:

        async def said(port: int, **reached: Any) -> str:
            session = sessions.to("adapters.node", ByHttp.model_validate(reached))
            health = await vendor(session, port, tmp_path, tls=True).check()
            assert not health.ok
            return health.sentence

        assert "authority that isn't known here. Name the authority" in await said(strict)
        assert "authority that isn't known" in await said(strict, ca=other.path)
        assert "asks for a `certificate` of ours" in await said(strict, ca=authority.path)
        with dcmtk.receiver(tmp_path / "elsewhere", options=elsewhere) as port:
            assert "another host's" in await said(port, ca=authority.path)
        with dcmtk.receiver(tmp_path / "plain") as port:
            assert "TLS" in await said(port, ca=authority.path)


def test_a_renewed_authority_lets_in_whom_it_knows(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOKED_FOR", 0.0)
    ours, renewed = authority.certify("gateway"), Authority(tmp_path, "renewed")
    modality = renewed.certify("modality-2")
    asked = tmp_path / "client-ca.pem"
    asked.write_bytes(authority.path.read_bytes())
    paths = write_study(tmp_path / "study", 1)
    shown = ["+tls", str(modality.key), str(modality.certificate), "+cf", str(authority.path)]
    tls = {"certificate": ours.certificate, "key": ours.key, "client_ca": asked}
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA, tls=tls) as here:
        for known in (False, True):
            if known:
                asked.write_bytes(renewed.path.read_bytes())
            sent = dcmtk.send(here.port, paths, calling="MODALITY", called="TRAUMA", options=shown)
            assert (sent.returncode == 0) is known, sent.stderr


def test_who_was_let_in_by_an_authority_that_counts_no_more_is_sent_away(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOKED_FOR", 0.0)
    ours, renewed = authority.certify("gateway"), Authority(tmp_path, "renewed")
    modality = authority.certify("modality-2")
    asked = tmp_path / "client-ca.pem"
    asked.write_bytes(authority.path.read_bytes())
    context = ssl.create_default_context(cafile=str(authority.path))
    context.check_hostname = False
    context.load_cert_chain(modality.certificate, modality.key)
    tls = {"certificate": ours.certificate, "key": ours.key, "client_ca": asked}
    with service(tmp_path / "data", None, PEERS, applications=TRAUMA, tls=tls) as here:
        entity = AE("MODALITY")
        entity.add_requested_context(Verification)
        entity.network_timeout = None  # or it would break off by itself
        calling = entity.associate(LOCAL, here.port, ae_title="TRAUMA", tls_args=(context, LOCAL))
        for _ in range(3):
            assert calling.send_c_echo().Status == 0
            time.sleep(0.5)  # it is looked at meanwhile, and stays
        asked.write_bytes(renewed.path.read_bytes())
        calling.join(60)
        assert calling.is_aborted
