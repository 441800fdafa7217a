"""The doors behind TLS: who must show a certificate and where, and ours as it is renewed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from yarl import URL

from tests.peers.certificates import Authority, Certified
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, hospital
from tests.peers.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Secured:
    house: Hospital
    ours: Authority
    sectras: Authority
    server: Certified

    def context(self, shown: Certified | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ours.path)
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context

    async def get(
        self,
        path: str,
        shown: Certified | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        connector = aiohttp.TCPConnector(ssl=self.context(shown))
        url = URL(path if "://" in path else self.house.gateway.url + path, encoded=True)  # spelt just so
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, url, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    async def number_shown(self) -> int:
        port = int(self.house.gateway.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.context())
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return x509.load_der_x509_certificate(der).serial_number

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.house.gateway.events() if event in each["event"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("house")
    ours, sectras = Authority(folder, "ours"), Authority(folder, "sectras")
    server = ours.certify("server")
    async with hospital(folder) as opened:
        opened.configuration["listen"] |= {
            "tls": {
                "certificate": str(server.certificate),
                "key": str(server.key),
                "client_ca": str(sectras.path),
                "subjects": ["CN=pacs-*", "127.0.0.7"],
            }
        }
        port = free_port()
        opened.configuration["vendors"] = {
            "public_url": f"https://127.0.0.1:{port}",
            "listen": {
                "port": port,
                "tls": {
                    "certificate": str(server.certificate),
                    "key": str(server.key),
                    "client_ca": str(sectras.path),
                    "subjects": ["vendor-*"],
                },
            },
        }
        gateway = await opened.start()
        gateway.url = gateway.url.replace("http:", "https:")
        yield Secured(opened, ours, sectras, server)


async def test_only_ia_asks_for_a_certificate(secured: Secured) -> None:
    status, said = await secured.get(f"/ia/{TRAUMA}")
    assert status == 403 and "listen.tls.client_ca" in said["detail"]
    assert (await secured.get("/api/v1/jobs"))[0] == 401
    assert (await secured.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("name", "address", "let_in"),
    [("pacs-1", "127.0.0.1", True), ("other", "127.0.0.7", True), ("not-a-pacs-1", "127.0.0.1", False)],
)
async def test_sectra_is_known_by_a_name_of_its_certificate(
    secured: Secured, name: str, address: str, let_in: bool
) -> None:
    status, said = await secured.get(f"/ia/{TRAUMA}", secured.sectras.certify(name, address))
    assert (status == 200) is let_in
    assert let_in or "listen.tls.subjects" in said["detail"]


def of_another_authority(secured: Secured, _: Path) -> Certified:
    return secured.ours.certify("pacs-9")


def made_by_himself(_: Secured, folder: Path) -> Certified:
    stranger = Authority(folder, "pacs-8")
    return stranger.certify("pacs-8")


def by_an_authority_that_calls_itself_theirs(_: Secured, folder: Path) -> Certified:
    return Authority(folder, "sectras").certify("pacs-7")


def signed_by_whom_they_certified(secured: Secured, folder: Path) -> Certified:
    """Who has any certificate of theirs makes one for another name with it."""
    own = secured.sectras.certify("insider")
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = Authority(folder, "insider", key).certify("pacs-6")
    made.certificate.write_bytes(made.certificate.read_bytes() + own.certificate.read_bytes())
    return made


def that_has_expired(secured: Secured, _: Path) -> Certified:
    return secured.sectras.certify("pacs-5", lasts=timedelta(days=-1))


def that_is_a_servers(secured: Secured, _: Path) -> Certified:
    return secured.sectras.certify("pacs-4", use=ExtendedKeyUsageOID.SERVER_AUTH)


@pytest.mark.parametrize(
    "forge",
    [
        of_another_authority,
        made_by_himself,
        by_an_authority_that_calls_itself_theirs,
        signed_by_whom_they_certified,
        that_has_expired,
        that_is_a_servers,
    ],
)
async def test_a_certificate_that_their_authority_does_not_vouch_for_opens_nothing(
    secured: Secured, tmp_path: Path, forge: Callable[[Secured, Path], Certified]
) -> None:
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.get(f"/ia/{TRAUMA}", forge(secured, tmp_path))


async def test_where_vendors_have_a_door_of_their_own_nobody_else_gets_a_word_out(secured: Secured) -> None:
    there = secured.house.configuration["vendors"]["public_url"] + "/adapters/milvue/x"
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.get(there)
    status, said = await secured.get(there, secured.sectras.certify("pacs-2"))
    assert status == 403 and "vendors.listen.tls.subjects" in said["detail"]
    assert (await secured.get(there, secured.sectras.certify("vendor-1")))[0] == 404
    assert (await secured.get(f"/ia/{TRAUMA}", secured.sectras.certify("vendor-2")))[0] == 403


async def test_who_has_no_certificate_gets_past_it_neither_by_words_nor_by_spelling(secured: Secured) -> None:
    shown = secured.sectras.certify("pacs-1").certificate.read_text()
    claims = {
        "X-SSL-Client-Verify": "SUCCESS",
        "X-SSL-Client-S-DN": "CN=pacs-1",
        "X-Client-Cert": quote(shown),
        "X-Forwarded-Client-Cert": 'Subject="CN=pacs-1"',
        "X-Forwarded-For": "127.0.0.7",
        "X-Original-URL": "/healthz",
    }
    path = f"/ia/{TRAUMA}"
    for spelling in (
        path,
        f"{path}/",
        path.upper(),
        f"/{path}",
        f"/healthz/..{path}",
        f"/.{path}",
        "/%69a" + path[3:],
    ):
        for method, end in (("GET", ""), ("GET", "/info"), ("POST", ""), ("POST", "/imagenotification")):
            status, said = await secured.get(spelling + end, method=method, headers=claims)
            assert status in (403, 404, 405), (method, spelling, status, said)
            assert TRAUMA not in str(said.get("displayName")) and "applicationId" not in said
    assert (await secured.get(path, headers=claims))[0] == 403


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_nothing_older_than_tls_12_is_spoken(secured: Secured) -> None:
    port = int(secured.house.gateway.url.rpartition(":")[2])
    for version, spoken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = secured.context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.transport.abort()
            assert spoken
        except OSError:  # an alert is one too
            assert not spoken


async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(secured: Secured) -> None:
    server, first = secured.server, await secured.number_shown()
    whole = server.certificate.read_bytes()
    server.certificate.write_bytes(whole[: len(whole) // 2])  # half-written
    async with asyncio.timeout(PATIENCE):
        while not secured.told("can't be used"):
            assert await secured.number_shown() == first
            await asyncio.sleep(0.1)
    for _ in range(15):
        assert await secured.number_shown() == first
        await asyncio.sleep(0.1)
    said = secured.told("can't be used")
    assert len({each["place"] for each in said}) == len(said) <= 2  # once for each listener
    assert all("is no certificate (PEM)" in each["problems"][0] for each in said)
    secured.ours.certify("server")
    async with asyncio.timeout(PATIENCE):
        while await secured.number_shown() == first:
            await asyncio.sleep(0.1)
    assert (await secured.get("/healthz"))[0] == 200


async def test_who_is_revoked_is_let_in_no_longer_on_an_open_connection_either(secured: Secured) -> None:
    """The list stands in the file of the authority, and is taken up as that is."""
    good, lost = secured.sectras.certify("pacs-21"), secured.sectras.certify("pacs-22")
    url = f"{secured.house.gateway.url}/ia/{TRAUMA}"
    connector = aiohttp.TCPConnector(ssl=secured.context(lost), keepalive_timeout=PATIENCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(url) as answer:
            assert answer.status == 200
        secured.sectras.revoke(lost)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                while True:
                    async with session.get(url) as answer:
                        assert answer.status == 200
                    await asyncio.sleep(0.2)
    assert (await secured.get(f"/ia/{TRAUMA}", good))[0] == 200
    assert (await secured.get("/healthz"))[0] == 200
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.get(f"/ia/{TRAUMA}", lost)
