"""A study that goes out without names by each way to Milvue, and all that comes back to its one true patient:
into a real archive, to a RIS that listens, on the slide, and in what the gateway tells."""

from __future__ import annotations

import copy
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset, dcmread

from gateway.simulate import milvue
from tests.peers.dicom_kinds import Somebody, document, item
from tests.peers.dicom_samples import encode, make_study
from tests.peers.gateway import ARCHIVE_PASSWORD, TRAUMA, Hospital, hospital
from tests.peers.line import line_to
from tests.peers.orthanc import Orthanc, orthanc
from tests.peers.ris import ris

SIGNED, SLIDE = "milvue-signed", "slide-planted"
NUMBER, NAME, ORDER = "MRN-7654321", "Quxwell^Zyxandra", "ORD-31415926"
UNTOUCHED = "(names the patient by a pseudonym)"
PLANTED = (
    *(
        "Quxwell",
        "Zyxandra",
        NUMBER,
        ORDER,
        "STUDY-2718",
        "19610723",
        "Hallerfurt",
        "Brackwater",
        "Oberhagen",
    ),
    *("CASE-1618", "Tromsund"),
)


@dataclass(frozen=True)
class Planted:
    study: str
    uids: tuple[str, ...]
    files: tuple[bytes, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*PLANTED, *self.uids)


def plant() -> Planted:
    """In headers, deep in sequences, in words and in private attributes."""
    images = list(make_study(2))
    for image in images:
        image.PatientName, image.PatientID, image.AccessionNumber = NAME, NUMBER, ORDER
        image.StudyID, image.PatientBirthDate = "STUDY-2718", "19610723"
        image.InstitutionName, image.ReferringPhysicianName = "Klinik Hallerfurt", "Brackwater^Otto"
        image.PatientAddress, image.StudyDescription = "Oberhagen 7", "Hand of Quxwell, Zyxandra"
        image.RequestAttributesSequence = [
            item(RequestedProcedureID="CASE-1618", StudyInstanceUID=image.StudyInstanceUID)
        ]
        image.private_block(0x0099, "WARD", create=True).add_new(1, "LO", "Tromsund")
    first = images[0]
    uids = {str(image[name].value) for image in images for name in ("SOPInstanceUID", "SeriesInstanceUID")}
    study = str(first.StudyInstanceUID)
    return Planted(study, (study, *sorted(uids)), tuple(map(encode, images)))


def add_document(header: Dataset) -> bytes:
    """A report of the vendor's, set as a PDF, in which the patient has the name that the vendor knows."""
    made = document(Somebody(str(header.PatientName), str(header.PatientID), "Report", "", ""))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyID"):
        setattr(made, keyword, header.get(keyword, ""))
    made.AcquisitionDateTime = f"{header.StudyDate}101112"
    made.EncapsulatedDocument = f"%PDF-1.4 of {header.PatientID}".encode()
    made.EncapsulatedDocument += b" " * (len(made.EncapsulatedDocument) % 2)
    return encode(made)


def stored(vna: Orthanc, before: set[str]) -> list[Dataset]:
    found: list[Dataset] = []
    for each in vna.get("/instances?expand"):
        if each["MainDicomTags"]["SOPInstanceUID"] not in before:
            answer = requests.get(f"{vna.url}/instances/{each['ID']}/file", auth=vna.auth, timeout=30)
            found.append(dcmread(BytesIO(answer.content)))
    return found


def told(house: Hospital, *texts: str) -> set[str]:
    words = "\n".join([*(each.log for each in house.gateways), *texts])
    return {secret for secret in house.secrets if secret in words}


async def test_it_went_out_without_names_and_came_back_to_the_one_true_patient(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant()
    made = milvue.make_results

    def make_more(study: milvue.Study, *more: Any) -> list[bytes]:
        return [*made(study, *more), add_document(next(iter(study.headers.values())))]

    monkeypatch.setattr(milvue, "make_results", make_more)
    async with AsyncExitStack() as stack:
        vna = stack.enter_context(orthanc(tmp_path / "orthanc", password=ARCHIVE_PASSWORD))
        paths = [tmp_path / f"{number}.dcm" for number in range(len(planted.files))]
        for path, data in zip(paths, planted.files, strict=True):
            path.write_bytes(data)
        vna.upload(paths)
        listener = await stack.enter_async_context(ris())
        house = await stack.enter_async_context(hospital(tmp_path, database_url))
        house.secrets |= set(planted.secrets)
        line = await stack.enter_async_context(line_to(house.milvue.url))
        line.said = said = bytearray()
        house.milvue.front.url = line.url  # where its signed urls lead

        house.configuration["archives"]["vna"]["url"] = vna.dicomweb
        house.configuration["destinations"]["ris"] = {
            "kind": "hl7",
            "host": "127.0.0.1",
            "port": listener.port,
        }
        house.configuration["profiles"] = {"research": {"options": ["retain-longitudinal-modified-dates"]}}
        adapters = house.configuration["adapters"]
        adapters["milvue"]["url"] = line.url
        adapters["signed"] = {**adapters["milvue"], "signed_url": True}
        house.application.update(deidentify="research", deliver=["sectra", "vna", "ris"])
        applications = house.configuration["departments"]["emergency"]["applications"]
        applications[SIGNED] = copy.deepcopy(house.application) | {"adapter": "signed"}
        house.show(SLIDE, study_instance_uid=planted.study, accession_number=ORDER)
        await house.start()

        images = vna.sop_instance_uids()
        jobs = []
        for application in (TRAUMA, SIGNED):
            await house.fire(SLIDE, applicationId=application)
            [job] = [each for each in await house.jobs_on(SLIDE) if each["application"] == application]
            jobs.append(await house.settled(job["id"], "done"))
        assert len(said) > sum(map(len, planted.files)), "both ways were listened to"
        assert not [secret for secret in planted.secrets if secret.encode() in said]
        [alias] = house.milvue.studies
        known = next(iter(house.milvue.studies[alias].headers.values()))
        aliases = {alias, str(known.PatientID), str(known.AccessionNumber), *house.milvue.arrivals}

        results = stored(vna, images)
        assert [job["proof"]["stored"] for job in jobs] == [3, 3]
        assert {each.Modality for each in results} == {"DX", "SR", "DOC"}
        for each in results:
            assert (each.PatientID, each.PatientName, each.AccessionNumber) == (NUMBER, NAME, ORDER)
            assert each.StudyInstanceUID == planted.study
            paper = each.get("EncapsulatedDocument")
            assert (paper is not None) == (each.Modality == "DOC")
            if paper is not None:
                assert str(known.PatientID).encode() in paper, "it is as the vendor made it"
                del each.EncapsulatedDocument
                assert each.DocumentTitle == f"Report {UNTOUCHED}"
                assert each.AcquisitionDateTime == f"{each.StudyDate}101112" > f"{known.StudyDate}1"
            assert not [one for one in aliases if one in f"{each.file_meta}{each.to_json()}"]

        assert len(listener.received) == 2
        for message in listener.received:
            assert (str(message.segment("PID")[3]), str(message.segment("PID")[5])) == (NUMBER, NAME)
            assert str(message.segment("OBR")[3]) == ORDER
            assert "Fracture" in str(message.segment("OBX")[5])
            assert not [one for one in aliases if one in str(message)]
        for application in (TRAUMA, SIGNED):
            [result] = house.results_on(SLIDE, application)
            assert "Milvue" in result["displayResult"]
            assert not [one for one in aliases if one in str(result)]
        async with house.http.get(f"{house.gateway.url}/metrics") as answer:
            assert told(house, await answer.text()) == set()
