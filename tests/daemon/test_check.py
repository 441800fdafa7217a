"""gateway check: each peer is recognised as what it is, our certificates are checked as theirs are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet

from gateway.commands.opening import only_looking
from gateway.database import open_store
from gateway.embedded import server as embedded
from gateway.jobs.schema import migrate
from gateway.jobs.store.alerts import Cause
from gateway.settings.sections import Settings
from gateway.simulate import archive, milvue, sectra, sectra_state
from gateway.simulate.serve import serve
from tests.peers.certificates import Authority
from tests.peers.collector import rsyslog
from tests.peers.orthanc import orthanc
from tests.peers.ris import ris

EXPIRED = timedelta(days=-1)
SUFFIX = "/SectraPathologyServer/"


async def checked(
    folder: Path, configuration: dict[str, Any], *options: str, **environment: str
) -> tuple[int, dict[str, Any], str]:
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(configuration))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "check", "--json", "--config", str(config), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    said, complained = await process.communicate()
    assert process.returncode is not None and b"Traceback" not in complained, complained.decode()
    return process.returncode, json.loads(said)["peers"] if said else {}, complained.decode()


def configure(folder: Path, **more: Any) -> dict[str, Any]:
    application = {"display_name": "Trauma", "adapter": "milvue", "archives": ["vna"]}
    return {
        "data_dir": str(folder / "data"),
        "archives": {"vna": {"kind": "dicomweb", "url": "http://127.0.0.1:1/dicom-web"}},
        "adapters": {
            "milvue": {
                "kind": "milvue",
                "url": "http://127.0.0.1:1",
                "token": "t",
                "commands": ["smartchest"],
            }
        },
        "departments": {"emergency": {"applications": {"trauma": application}}},
        **more,
    }


@asynccontextmanager
async def opened(
    make: Callable[[], web.Application], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    if tls is None:
        runner, port = await serve(make())
    else:
        runner = web.AppRunner(make())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
    try:
        yield port
    finally:
        await runner.cleanup()


async def test_each_peer_is_recognised_as_what_it_is(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        ports = {
            "archive": await stack.enter_async_context(opened(archive.make_app)),
            "milvue": await stack.enter_async_context(opened(milvue.make_app)),
            "sectra": await stack.enter_async_context(opened(sectra.make_app)),
        }
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        listener = await stack.enter_async_context(ris())
        collector = await stack.enter_async_context(rsyslog(tmp_path / "collector"))
        options: dict[str, Any] = {"DicomAlwaysAllowFind": False, "DicomAlwaysAllowEcho": True}
        strange = stack.enter_context(orthanc(tmp_path / "strange", **options))
        options |= {"modalities": {"us": ("GATEWAY", "127.0.0.1", 11112)}}
        friend = stack.enter_context(orthanc(tmp_path / "friend", **options))
        dimse = {"kind": "dimse", "host": "127.0.0.1", "ae_title": "ORTHANC"}
        of_milvue = {"kind": "milvue", "token": milvue.TOKEN, "commands": ["smarturgences"]}
        user = {"username": sectra_state.USERNAME, "password": sectra_state.PASSWORD}
        configuration = configure(
            tmp_path,
            sectra={
                "servers": {
                    "main": {"callback_urls": [urls["sectra"] + SUFFIX]},
                    "user": {"callback_urls": [urls["sectra"] + SUFFIX], **user},
                    "wrong": {"callback_urls": [urls["sectra"] + SUFFIX], **user, "password": "mistyped"},
                    "another": {"callback_urls": [urls["archive"] + SUFFIX]},
                }
            },
            archives={
                "vna": {"kind": "dicomweb", "url": urls["archive"] + "/dicom-web"},
                "friend": {**dimse, "port": friend.dicom_port},
                "strange": {**dimse, "port": strange.dicom_port},
            },
            destinations={
                "ris": {"kind": "hl7", "host": "127.0.0.1", "port": listener.port},
                "web": {"kind": "hl7", "host": "127.0.0.1", "port": ports["archive"]},
            },
            adapters={
                "milvue": {**of_milvue, "url": urls["milvue"]},
                "another": {**of_milvue, "url": urls["archive"]},
                "third": {**of_milvue, "url": friend.url},
            },
            dimse={"port": 0},
            audit_log=collector.configured(),
            traces={"endpoint": urls["archive"]},
        )
        code, peers, _ = await checked(tmp_path, configuration)
    told = {name: peer["sentence"] for name, peer in peers.items()}
    good = {name for name, peer in peers.items() if peer["ok"]}
    assert code == 1
    assert good == {
        *("sectra.servers.main", "sectra.servers.user", "archives.vna", "archives.friend"),
        *("destinations.ris", "adapters.milvue", "audit_log"),
    }, told
    assert peers["audit_log"]["certificate_expires"]
    assert "takes our user" in told["sectra.servers.user"]
    assert "username and password" in told["sectra.servers.wrong"]
    assert "no Sectra answers" in told["sectra.servers.another"]
    assert "GATEWAY" in told["archives.strange"] and "url" in told["adapters.another"]
    assert "speaks HTTP" in told["destinations.web"]
    assert "The collector of traces answered 404" in told["traces"]


async def test_three_reasons_not_to_trust_are_three_sentences(tmp_path: Path) -> None:
    trusted, strange = Authority(tmp_path), Authority(tmp_path, "stranger")
    servers = {
        "good": trusted.certify("good"),
        "expired": trusted.certify("expired", lasts=EXPIRED),
        "elsewhere": trusted.certify("elsewhere", "192.0.2.7"),
        "stranger": strange.certify("strange"),
    }
    async with AsyncExitStack() as stack:
        archives, destinations = {}, {}
        for name, certified in servers.items():
            port = await stack.enter_async_context(opened(archive.make_app, certified.server))
            archives[name] = {"kind": "dicomweb", "url": f"https://127.0.0.1:{port}/dicom-web"}
            tls = {"ca": str(trusted.path)}
            destinations[name] = {"kind": "hl7", "host": "127.0.0.1", "port": port, "tls": tls}
        configuration = configure(tmp_path, destinations=destinations)
        configuration["archives"] |= archives
        code, peers, _ = await checked(tmp_path, configuration, SSL_CERT_FILE=str(trusted.path))
    assert code == 1 and peers["archives.good"]["ok"]
    assert peers["archives.good"]["certificate_expires"] is not None
    reasons = {"expired": "has expired", "elsewhere": "another host's", "stranger": "isn't known here"}
    for name, reason in reasons.items():
        for peer in (f"archives.{name}", f"destinations.{name}"):
            assert not peers[peer]["ok"] and reason in peers[peer]["sentence"], peers[peer]


async def test_our_own_certificates_are_checked_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.certify("good")
    expired = authority.certify("expired", lasts=EXPIRED)
    listen = {"certificate": str(good.certificate), "key": str(good.key)}
    code, peers, _ = await checked(tmp_path, configure(tmp_path, listen={"tls": listen}), "--offline")
    ours = peers["listen.tls.certificate"]
    assert code == 0 and ours["ok"] and ours["certificate_expires"]
    dated = {"certificate": str(expired.certificate), "key": str(expired.key)}
    code, peers, _ = await checked(tmp_path, configure(tmp_path, listen={"tls": dated}), "--offline")
    assert code == 1 and "our certificate has expired" in peers["listen.tls.certificate"]["sentence"]


async def test_each_file_of_a_certificate_that_lacks_is_said_with_its_line(tmp_path: Path) -> None:
    lacking = {name: str(tmp_path / f"no.{name}") for name in ("certificate", "key")}
    archive = {"kind": "dicomweb", "url": "https://127.0.0.1:1/dicom-web", "ca": str(tmp_path / "no.ca")}
    configuration = configure(tmp_path, listen={"tls": lacking}, archives={"vna": archive})
    code, _, complained = await checked(tmp_path, configuration, "--offline")
    config = tmp_path / "gateway.yaml"
    lines = config.read_text().splitlines()
    assert code == 1
    for place, file in (
        *((f"listen.tls.{name}", file) for name, file in lacking.items()),
        ("archives.vna.ca", archive["ca"]),
    ):
        number = next(at for at, line in enumerate(lines, 1) if file in line)
        assert f"{config} line {number}: {place}: {file} can't be read: No such file" in complained
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "run", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ,
    )
    said, _ = await process.communicate()
    assert process.returncode == 1
    assert set(complained.splitlines()) <= set(said.decode().splitlines())


async def test_what_we_show_peers_is_ours_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, expired = authority.certify("good"), authority.certify("expired", lasts=EXPIRED)
    configuration = configure(tmp_path)
    configuration["adapters"]["milvue"] |= {"certificate": str(good.certificate), "key": str(good.key)}
    dated = {"certificate": str(expired.certificate), "key": str(expired.key)}
    pacs = {"kind": "dimse", "host": "pacs", "port": 104, "ae_title": "PACS", **dated}
    configuration["archives"]["pacs"] = pacs
    code, peers, _ = await checked(tmp_path, configuration, "--offline")
    assert code == 1 and peers["adapters.milvue.certificate"]["ok"]
    assert "has expired" in peers["archives.pacs.certificate"]["sentence"]


async def test_a_database_of_a_newer_release_is_no_good_one(tmp_path: Path, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    keys = [Fernet.generate_key().decode()]
    configuration = configure(tmp_path, database_url=database_url, secret_keys=keys)
    _, peers, _ = await checked(tmp_path, configuration)
    assert not peers["database_url"]["ok"] and "newer release" in peers["database_url"]["sentence"]


async def test_a_database_that_hangs_is_told_beside_the_peers(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with embedded.serve(tmp_path / "data", fast=True) as url:
        await asyncio.to_thread(migrate, url)
        async with open_store(only_looking(Settings.model_construct(secret_keys=[])), url) as store:
            await store.pause("adapters.milvue", "their upgrade", "me")
        _, peers, _ = await checked(tmp_path, configure(tmp_path))
        assert peers["database"]["ok"], peers
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "check", "--config", str(tmp_path / "gateway.yaml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        said, _ = await process.communicate()
        assert b"paused  adapters.milvue: their upgrade" in said
        assert b"gateway unpause adapter milvue" in said
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        away = f"postgresql://gateway@127.0.0.1:{port}/gateway"
        keys = [Fernet.generate_key().decode()]
        configuration = configure(tmp_path, database_url=away, secret_keys=keys)
        code, peers, _ = await checked(tmp_path, configuration)
    assert code == 1 and "doesn't answer" in peers["database_url"]["sentence"], peers
    assert "archives.vna" in peers


async def test_ways_of_alerts_are_checked_and_nothing_is_told(tmp_path: Path) -> None:
    asked: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(status=405)

    def make_hook() -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/hook", hear)
        return application

    email = {"host": "127.0.0.1", "port": 1, "from": "gateway@hospital", "to": ["it@hospital"]}
    async with TestServer(make_hook()) as hook:
        alerts = {"webhook": {"url": str(hook.make_url("/hook"))}, "email": email}
        code, peers, _ = await checked(tmp_path, configure(tmp_path, alerts=alerts))
    assert code == 1 and asked == ["HEAD"]
    assert peers["alerts.webhook"]["ok"] and not peers["alerts.email"]["ok"]
    assert "mail server can't be reached" in peers["alerts.email"]["sentence"]
    async with TestServer(make_hook()) as hook, embedded.serve(tmp_path / "data", fast=True) as url:
        await asyncio.to_thread(migrate, url)
        alerts["webhook"] = {"url": str(hook.make_url("/hook"))}
        async with open_store(only_looking(Settings.model_construct(secret_keys=[])), url) as store:
            refused = "alerts can't be told by webhook: it refused our credentials (401)"
            await store.see([Cause("alerts.webhook", refused, "Correct alerts.webhook.token.")])
        code, peers, _ = await checked(tmp_path, configure(tmp_path, alerts=alerts))
    assert code == 1 and not peers["alerts.webhook"]["ok"], "it answers, and takes none of them"
    assert peers["alerts.webhook"]["sentence"].startswith(f"{refused}, since ")
    _, peers, _ = await checked(tmp_path, configure(tmp_path, alerts=alerts))
    told = peers["alerts.webhook"]
    assert not told["ok"] and "webhook of alerts can't be reached" in told["sentence"]


BROKEN = """
from pydantic import BaseModel

class Options(BaseModel):
    pass

class Broken:
    Options = Options
    interactive, needs_study = False, True
    def __init__(self, options, session, work): ...
    def routes(self): return ()
    async def check(self): raise RuntimeError("patient Doe")
"""


async def test_an_adapter_that_breaks_is_said_in_a_sentence(tmp_path: Path) -> None:
    """Installed as anybody may install theirs: with an entry point to nowhere, or a check that breaks."""
    installed = tmp_path / "installed" / "broken-1.dist-info"
    installed.mkdir(parents=True)
    (installed.parent / "broken.py").write_text(BROKEN)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        "[gateway.adapters]\nnowhere = broken.missing:Adapter\nbroken = broken:Broken\n"
    )
    configuration = configure(tmp_path)
    configuration["adapters"]["own"] = {"kind": "broken"}
    code, peers, complained = await checked(tmp_path, configuration, PYTHONPATH=str(installed.parent))
    assert (
        code == 1 and peers["adapters.own"]["sentence"] == "its check broke (RuntimeError): tell its makers"
    )
    assert "Doe" not in complained
    configuration["adapters"]["own"] = {"kind": "nowhere"}
    code, _, complained = await checked(tmp_path, configuration, PYTHONPATH=str(installed.parent))
    assert code == 1
    assert "adapters.own.kind is nowhere, which can't be loaded (ModuleNotFoundError)" in complained


async def test_ctrl_c_waits_for_no_peer_that_hangs(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    archive = {"kind": "dimse", "host": "127.0.0.1", "port": port, "ae_title": "PACS", "retrieve": "get"}
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(configure(tmp_path, archives={"vna": archive})))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "check", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            await asked.wait()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):  # the peer is waited for longer
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        server.close()
    assert process.returncode == 130
    assert (said, complained.decode().splitlines()[-1]) == (
        b"",
        "stopped before all had answered; nothing was changed",
    )
    assert b"Traceback" not in complained


async def test_a_script_is_told_what_is_wrong_with_the_configuration_too(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "check", "--offline", "--json", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    [told] = json.loads(said)["problems"]
    assert process.returncode == 1 and json.loads(said)["configuration"] == str(config)
    assert told == f"{config}: can't be read: No such file or directory" == complained.decode().strip()
