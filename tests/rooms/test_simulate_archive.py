"""The simulated archive, met with the DICOMweb client that hospitals use, and with bare requests."""

from __future__ import annotations

import asyncio
import io

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import UID
from requests_toolbelt.multipart import decoder

from gateway.simulate.archive import ArchiveState, Manners, make_app
from gateway.simulate.patients import HAND, SLIDE
from gateway.simulate.samples import make_samples
from gateway.simulate.serve import serve

WADO = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
HAND_FILES, SLIDE_FILES = make_samples()[0].files, make_samples()[-1].files


@pytest.fixture
async def archive():
    state = ArchiveState()
    runner, _ = await serve(make_app(state))
    yield state
    await runner.cleanup()


def pack(files, boundary="frontier", closing=True):
    body = b"".join(
        b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (boundary.encode(), data) for data in files
    )
    return body + (b"--%b--\r\n" % boundary.encode() if closing else b"")


def post(url, body):
    kind = 'multipart/related; type="application/dicom"; boundary=frontier'
    return requests.post(url, data=body, headers={"Content-Type": kind}, timeout=20)


async def test_a_client_searches_retrieves_and_stores(archive):
    def talk():
        client = DICOMwebClient(archive.url)
        found = client.search_for_studies(search_filters={"AccessionNumber": HAND.accession_number})
        assert [each["0020000D"]["Value"] for each in found] == [[HAND.study_instance_uid]]
        assert found[0]["00201208"]["Value"] == [2]
        assert found[0]["00080061"]["Value"] == ["CR"]
        assert found[0]["00080056"]["Value"] == ["ONLINE"]
        assert len(client.search_for_studies()) == 4
        assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
        assert len(client.search_for_series(HAND.study_instance_uid)) == 1
        assert len(client.search_for_instances(HAND.study_instance_uid, fields=["Manufacturer"])) == 2
        got = client.retrieve_study(SLIDE.study_instance_uid)
        assert {each.SOPInstanceUID for each in got} == {
            dcmread(io.BytesIO(each), stop_before_pixels=True).SOPInstanceUID for each in SLIDE_FILES
        }
        new = dcmread(io.BytesIO(HAND_FILES[0]))
        new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1234")
        told = client.store_instances([new])
        assert [each.ReferencedSOPInstanceUID for each in told.ReferencedSOPSequence] == ["2.25.1234"]
        assert list(told.FailedSOPSequence) == []

    await asyncio.to_thread(talk)
    assert list(archive.stored) == ["2.25.1234"]


async def test_bytes_are_the_stored_ones_only_when_asked_for(archive):
    def fetch(headers):
        answer = requests.get(
            f"{archive.url}/studies/{SLIDE.study_instance_uid}", headers=headers, timeout=20
        )
        return [part.content for part in decoder.MultipartDecoder.from_response(answer).parts]

    assert sorted(await asyncio.to_thread(fetch, WADO)) == sorted(SLIDE_FILES)
    unasked = await asyncio.to_thread(fetch, {"Accept": 'multipart/related; type="application/dicom"'})
    assert sum(map(len, unasked)) > 10 * sum(map(len, SLIDE_FILES))


async def test_storing_tells_what_failed(archive):
    url = f"{archive.url}/studies/{HAND.study_instance_uid}"
    assert (await asyncio.to_thread(post, url, pack(SLIDE_FILES))).status_code == 409
    mixed = await asyncio.to_thread(post, url, pack([HAND_FILES[0], SLIDE_FILES[0]]))
    assert mixed.status_code == 202
    failed = mixed.json()["00081198"]["Value"]
    assert [each["00081197"]["Value"] for each in failed] == [[0xA900]]
    altered = HAND_FILES[0][:-2] + b"\x01\x02"
    assert (await asyncio.to_thread(post, url, pack([altered]))).status_code == 200
    sop = str(dcmread(io.BytesIO(altered)).SOPInstanceUID)
    assert archive.instances[sop].data == HAND_FILES[0]
    assert archive.stored == {}
    assert (await asyncio.to_thread(post, url, pack(HAND_FILES, closing=False))).status_code == 400
    assert (await asyncio.to_thread(post, url, pack([b"not a DICOM file"]))).status_code == 400
    assert archive.offered.count(sop) == 2


async def test_it_misbehaves_as_told(archive):
    study = f"{archive.url}/studies/{HAND.study_instance_uid}"

    def read(**manners):
        archive.manners = Manners(**manners)
        return requests.get(study, headers=WADO, timeout=20)

    cut = await asyncio.to_thread(read, cut_after=1)
    assert cut.status_code == 200
    assert not cut.content.rstrip().endswith(b"--")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        await asyncio.to_thread(read, cut_after=1, cut="reset")
    doubled = await asyncio.to_thread(read, duplicates=1)
    assert len(decoder.MultipartDecoder.from_response(doubled).parts) == 3
    assert (await asyncio.to_thread(read, availability="OFFLINE")).status_code == 404
    front = {"faults": [{"path": "/studies", "status": 503, "headers": {"Retry-After": "2"}, "times": 1}]}
    control = f"{archive.front.url}/control/faults"
    assert (await asyncio.to_thread(requests.put, control, json=front, timeout=20)).ok
    refused = await asyncio.to_thread(read)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert (await asyncio.to_thread(read)).ok
    assert archive.front.count("GET", "/studies/") == 6


async def test_it_keeps_strangers_out():
    state = ArchiveState()
    runner, _ = await serve(make_app(state, username="gw", password="secret"))
    try:
        ask = [
            asyncio.to_thread(requests.get, state.url + "/studies", auth=auth, timeout=20)
            for auth in (None, ("gw", "wrong"), ("gw", "secret"))
        ]
        assert [answer.status_code for answer in await asyncio.gather(*ask)] == [401, 401, 200]
    finally:
        await runner.cleanup()
