"""The simulated Milvue over plain HTTP: what arrives is counted truly, and every state can be met."""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import socket
import time
from typing import get_args

import pytest
import requests
from pydicom import dcmread
from requests_toolbelt.multipart import decoder
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.simulate.front import Fault
from gateway.simulate.guides import MILVUE
from gateway.simulate.milvue import (
    COMMANDS,
    TOKEN,
    Behaviour,
    MilvueState,
    Outcome,
    Quota,
    Storage,
    make_app,
)
from gateway.simulate.patients import HAND
from gateway.simulate.samples import make_samples
from gateway.simulate.serve import serve

UID = HAND.study_instance_uid
FILES = make_samples()[0].files
SOPS = [str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID) for data in FILES]
KIND = 'multipart/related; type="application/dicom"; boundary=frontier'


def pack(files):
    parts = [b"--frontier\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files]
    return b"".join(parts) + b"--frontier--\r\n"


@pytest.fixture
async def milvue():
    state = MilvueState()
    state.behaviours["*"] = Behaviour(delay=0)
    runner, _ = await serve(make_app(state))
    yield state
    await runner.cleanup()


class Caller:
    def __init__(self, state):
        self.state = state

    async def __call__(self, method, path, **more):
        headers = {"x-goog-meta-owner": self.state.token, **more.pop("headers", {})}
        url = path if path.startswith("http") else self.state.url + path
        return await asyncio.to_thread(requests.request, method, url, headers=headers, timeout=20, **more)

    async def send(self, files=FILES, signed="false"):
        path = f"/v3/studies?signed_url={signed}"
        return await self("POST", path, data=pack(files), headers={"Content-Type": KIND})

    async def fetch(self, **query):
        query = {"inference_command": "smarturgences", "signed_url": "false", **query}
        return await self("GET", f"/v3/studies/{UID}", params=query)


@pytest.fixture
def call(milvue):
    return Caller(milvue)


async def test_a_study_is_taken_once_and_answered(milvue, call):
    assert (await call("GET", f"/v3/studies/{UID}/status")).status_code == 404
    sent = await call.send()
    assert (sent.status_code, sent.json()["StudyInstanceUID"]) == (200, UID)
    assert (milvue.posts, dict(milvue.arrivals)) == ({UID: 1}, dict.fromkeys(SOPS, 1))
    assert (await call("GET", f"/v3/studies/{UID}/status")).json()["status"] == "done"
    parts = decoder.MultipartDecoder.from_response(await call.fetch()).parts
    made = [dcmread(io.BytesIO(part.content)) for part in parts]
    assert [each.Modality for each in made] == ["CR", "SR"]
    assert {str(each.StudyInstanceUID) for each in made} == {UID}
    found = (await call("GET", f"/v3/smarturgences/{UID}", params={"language": "fr"})).json()
    assert found["flag"]["label"] == "abnormal"
    assert found["hl7"].startswith("MSH|^~\\&|")
    assert [each["SOPInstanceUID"] for each in found["instances"]] == SOPS
    measured = (await call("GET", f"/v3/smartxpert/{UID}")).json()
    assert measured["instances"][0]["measures"][0]["type"] == "angle"
    assert (await call("POST", f"/v3/interesting/{UID}")).ok


async def test_signed_urls_take_the_instances_one_by_one(milvue, call):
    assert (await call.send(signed="true")).status_code == 400  # the pixels are still in it
    bare = []
    for data in FILES:
        header = dcmread(io.BytesIO(data))
        header.PixelData = b""
        buffer = io.BytesIO()
        header.save_as(buffer)
        bare.append(buffer.getvalue())
    urls = (await call.send(bare, signed="true")).json()["signed_urls"]
    assert (set(urls), milvue.arrivals.total()) == (set(SOPS), 0)
    right = {"Content-Type": "application/dicom", "x-ms-blob-type": "BlockBlob"}
    assert (await call("PUT", urls[SOPS[0]], data=FILES[0])).status_code == 400
    assert (await call("PUT", urls[SOPS[0]], data=FILES[1], headers=right)).status_code == 400
    assert (await call("PUT", urls[SOPS[0]], data=FILES[0], headers=right)).status_code == 201
    assert (await call("GET", f"/v3/studies/{UID}/status")).json()["status"] == "running"
    assert (await call("PUT", urls[SOPS[1]], data=FILES[1], headers=right)).status_code == 201
    assert (milvue.posts, dict(milvue.arrivals)) == ({UID: 1}, dict.fromkeys(SOPS, 1))
    results = (await call.fetch(signed_url="true")).json()
    fetched = await call("GET", results["signed_urls"][0])
    assert dcmread(io.BytesIO(fetched.content)).Modality == "CR"


@pytest.mark.parametrize(("storage", "named"), [("google", "X-Goog-SignedHeaders"), ("azure", "sv")])
async def test_urls_are_signed_as_by_the_clouds_and_expire(milvue, call, storage, named):
    header = dcmread(io.BytesIO(FILES[0]))
    header.PixelData = b""
    buffer = io.BytesIO()
    header.save_as(buffer)
    right = {"Content-Type": "application/dicom", "x-ms-blob-type": "BlockBlob"}
    milvue.behaviours["*"] = Behaviour(delay=0, storage=storage, urls_hold=0)
    [url] = (await call.send([buffer.getvalue()], signed="true")).json()["signed_urls"].values()
    assert f"{named}=" in url
    refused = await call("PUT", url, data=FILES[0], headers=right)
    assert (refused.status_code, refused.headers["Content-Type"].split(";")[0]) == (403, "application/xml")
    milvue.behaviours["*"] = Behaviour(delay=0, storage=storage)
    [url] = (await call.send([buffer.getvalue()], signed="true")).json()["signed_urls"].values()
    bare = await call("PUT", url, data=FILES[0], headers={"Content-Type": "application/dicom"})
    assert bare.status_code == (201 if storage == "google" else 400)
    assert (await call("PUT", url, data=FILES[0], headers=right)).status_code == 201
    assert (await call("PUT", url[:-6], data=FILES[0], headers=right)).status_code == 403
    state = (await call("GET", "/control/state")).json()
    assert (state["studies"][UID]["signings"], state["studies"][UID]["missing"]) == (2, 0)
    assert state["most_uploads_at_once"] == 1


async def test_it_takes_so_many_studies_and_single_commands_may_never_end(milvue, call):
    assert (await call("PUT", "/control/quota", json={"left": 1, "retry_after": 7})).ok
    assert (await call.send()).ok
    refused = await call.send()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")
    assert (await call("PUT", "/control/quota", json={})).ok
    assert (await call.send()).ok
    behaviour = {"delay": 0, "outcomes": {"smartxpert": "running"}}
    assert (await call("PUT", "/control/behaviour", json=behaviour)).ok
    assert (await call("GET", f"/v3/studies/{UID}/status")).json()["status"] == "done"
    assert (await call("GET", f"/v3/smartxpert/{UID}")).json()["status"] == "running"
    assert (await call("GET", f"/v3/smarturgences/{UID}")).json()["status"] == "done"
    assert (await call("PUT", "/control/behaviour", json={"delay": 0, "outcome": "running"})).ok
    assert (await call("GET", f"/v3/studies/{UID}/status")).json()["status"] == "running"


def test_its_guide_leaves_out_nothing_that_it_can_be_told():
    shown = CliRunner().invoke(app, ["simulate", "milvue", "--help"])
    assert shown.exit_code == 0 and shown.stdout.startswith(MILVUE)
    words = set(re.findall(r"[\w-]+", MILVUE))
    names = {*Behaviour.model_fields, *Quota.model_fields, *Fault.model_fields, *get_args(Outcome)}
    names |= {*get_args(Storage), *COMMANDS, TOKEN}
    assert names - words == set()
    routes = {resource.canonical for resource in make_app().router.resources()}
    assert {path for path in routes if path.startswith("/control/") and path not in MILVUE} == set()


async def test_a_broken_upload_counts_as_nothing(milvue):
    body = pack(FILES)
    head = (
        f"POST /v3/studies?signed_url=false HTTP/1.1\r\nHost: x\r\nx-goog-meta-owner: {milvue.token}\r\n"
        f"Content-Type: {KIND}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()

    def break_off():
        port = int(milvue.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head + body[:-20])

    await asyncio.to_thread(break_off)
    await asyncio.to_thread(requests.get, f"{milvue.url}/control/state", timeout=20)
    assert (milvue.posts, milvue.arrivals.total()) == ({}, 0)


async def test_every_state_can_be_met(milvue, call):
    assert (await call.send()).ok

    async def see(**behaviour):
        settings = {"study": UID, "delay": 0, **behaviour}
        assert (await call("PUT", "/control/behaviour", json=settings)).ok
        return await call.fetch()

    nothing = await see(outcome="empty")
    assert (len(nothing.content), nothing.headers["Content-Type"].split(";")[0]) == (38, "multipart/related")
    assert (await see(outcome="empty-json")).json()["status"] == "empty"
    assert (await see(outcome="forbidden")).json()["status"] == "forbidden"
    assert (await see(outcome="error")).json()["status"] == "error"
    broken = await see(outcome="formatting-error")
    assert (broken.status_code, broken.json()) == (500, {"message": "Error formatting study"})
    inside = await see(outcome="forbidden", json_in_multipart=True)
    assert [
        part.headers[b"Content-Type"] for part in decoder.MultipartDecoder.from_response(inside).parts
    ] == [b"application/json"]
    zipped = decoder.MultipartDecoder.from_response(await see(gzip=True)).parts[0]
    assert zipped.headers[b"Content-Type"] == b"application/dicom+gzip"
    assert dcmread(io.BytesIO(gzip.decompress(zipped.content))).Modality == "CR"
    stray = decoder.MultipartDecoder.from_response(await see(spoil="other-study")).parts[0]
    assert str(dcmread(io.BytesIO(stray.content)).StudyInstanceUID) != UID
    assert len((await see(spoil="bomb")).content) < 10_000_000
    milvue.studies[UID].done_at = time.monotonic() + 600
    assert (await call.fetch()).json()["status"] == "running"
    assert (await call("PUT", "/control/behaviour", json={"outcome": "quota", "study": UID})).ok
    refused = await call.send()
    assert (refused.status_code, set(refused.json())) == (429, {"message", "example"})
    assert milvue.posts == {UID: 1}


async def test_strangers_and_nonsense_are_refused(milvue, call):
    assert (
        await call("GET", f"/v3/studies/{UID}/status", headers={"x-goog-meta-owner": "x"})
    ).status_code == 403
    mixed = [FILES[0], make_samples()[1].files[0]]
    assert (await call.send(mixed)).status_code == 400
    assert (await call.send([])).status_code == 400
    assert (await call.fetch(output_format="oil-painting")).status_code == 422
    assert milvue.arrivals.total() == 0
