"""The study of nobody is valid DICOM, and says everywhere whose it isn't."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pydicom

from gateway.archives.canary import CanaryStudies, fresh_study, picture_of
from gateway.dicom.part10 import read_header


async def test_it_is_valid_and_nobodys(tmp_path: Path) -> None:
    study = fresh_study()
    data = picture_of(study)
    assert len(study) + len(".1.1") <= 64
    (tmp_path / "canary.dcm").write_bytes(data)
    told = subprocess.run(
        ["/usr/bin/dciodvfy", tmp_path / "canary.dcm"], capture_output=True, text=True, check=False
    )
    assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == []
    assert "CRImage" in told.stderr
    read = pydicom.dcmread(BytesIO(data))
    assert (read.PatientID, read.QualityControlImage) == ("GATEWAY-CANARY", "YES")
    assert "Not a patient" in read.PatientComments
    assert "NOT A PATIENT" in str(read.PatientName)
    assert set(read.pixel_array[0]) == {600, 3000}

    studies = CanaryStudies()
    [found] = await studies.find_studies(study_instance_uid=study)
    [listed] = await studies.list_instances(study)
    [instance] = [each async for each in studies.retrieve(study, {listed.sop_instance_uid})]
    sent = b"".join([chunk async for chunk in instance.chunks()])
    assert (found.study_instance_uid, found.identity.patient_id) == (study, read.PatientID)
    assert read_header(sent) == instance.header
